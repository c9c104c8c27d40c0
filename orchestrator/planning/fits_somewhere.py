"""Whether a sweep fits any machine of those who serve the store: asked at submit."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pydantic import ValidationError

from orchestrator.nodes.records import read_nodes
from orchestrator.planning.largest_trial import largest_trial
from orchestrator.planning.node_types import ClusterShape, Kind, NodeType
from orchestrator.planning.placement import DoesNotFit, device_kind
from orchestrator.planning.plan import fits, suggested
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.units import format_bytes
from orchestrator.store import Store

logger = logging.getLogger(__name__)

NOBODY = "nobody serves this store now: the sweep waits for a `saeq serve`"


class FitsNoNodeType(DoesNotFit):
    """A trial that is too large for every machine there is or would be brought."""

    def __init__(self, trial_bytes: int, shared_bytes: int, config: str, machines: str) -> None:
        super().__init__(trial_bytes, shared_bytes, config, machines)
        self.trial_bytes, self.shared_bytes = trial_bytes, shared_bytes
        self.config, self.machines = config, machines

    def __str__(self) -> str:
        return (
            f"a trial needs {format_bytes(self.trial_bytes)} beside the "
            f"{format_bytes(self.shared_bytes)} that trials share (its model above all), which "
            f"fits no machine that is served now: {self.machines}; its configuration is "
            f"{self.config}; lower its width or batch_tokens, serve a larger machine, or say "
            "--anyway"
        )


class NoSuchDevice(DoesNotFit):
    """A sweep that asks for a device that no machine has."""

    def __init__(self, device: str, machines: str) -> None:
        super().__init__(device, machines)
        self.device, self.machines = device, machines

    def __str__(self) -> str:
        return (
            f"device: {self.device} was asked for, which no machine that is served now has: "
            f"{self.machines}; use device: auto, serve one that has it, or say --anyway"
        )


def served_shapes(store: Store) -> list[ClusterShape] | None:
    """What each live `serve` of a store says that it takes; None where nobody serves it.

    Those that have not said it yet are left out.
    """
    live = [record.itself for record in read_nodes(store) if record.is_fresh() and record.itself]
    # A node of a cluster that watches for notices says that it is there, and serves nobody.
    live = [side for side in live if side.takes or side.kind != "cluster"]
    if not live:
        return None
    shapes = []
    for side in live:
        try:
            types = tuple(NodeType.model_validate(each) for each in side.takes)
        except ValidationError as error:
            logger.info("what node %s takes makes no sense here: %s", side.id, error)
            continue
        if types:
            shapes.append(ClusterShape(types=types))
    return shapes


def refuse_what_nobody_takes(spec: SweepSpec, shapes: Sequence[ClusterShape]) -> str:
    """Hold a sweep's largest trial against every node type; says what it is worth knowing.

    A type whose memory is a guess refuses nothing.

    Raises:
        FitsNoNodeType: it fits none of them.
        NoSuchDevice: none has the device that the sweep asks for.
    """
    configs = suggested(spec)
    footprints = [spec.kind.footprint(spec.setup, config) for config in configs]
    largest = largest_trial(configs, footprints)
    asked: list[tuple[NodeType, Kind]] = []
    for shape in shapes:
        try:
            kind = device_kind(spec, shape)
        except DoesNotFit:
            continue
        asked += [(each, kind) for each in shape.with_device(kind)]
    if not asked:
        names = [each.name for shape in shapes for each in shape.types if each.num_nodes]
        raise NoSuchDevice(spec.device, ", ".join(names) or "none")
    if any(fits(largest.footprint.on(kind), each.device(kind)) for each, kind in asked):
        return ""
    if guessed := [each for each, kind in asked if kind == "cuda" and each.gpu_basis == "guessed"]:
        return (
            f"whether a trial fits is not known: nobody knows the memory of {guessed[0].name}; "
            "label its nodes saeq-instance-type or ray.io/accelerator-type (A100-80G)"
        )
    _, kind = max(asked, key=lambda a: a[0].device(a[1]).usable_bytes)
    needs, config = largest.footprint.on(kind), largest.config_by_device[kind]
    told = ", ".join(f"{name}={value}" for name, value in config.items())
    raise FitsNoNodeType(needs.trial_bytes, needs.shared_bytes, told, _listed(asked))


def _listed(asked: Sequence[tuple[NodeType, Kind]]) -> str:
    """The largest first."""
    ranked = sorted(asked, key=lambda a: a[0].device(a[1]).usable_bytes, reverse=True)
    said = [
        f"{each.described(kind)} has {format_bytes(each.device(kind).usable_bytes)}"
        for each, kind in ranked
    ]
    return ", ".join(dict.fromkeys(said))
