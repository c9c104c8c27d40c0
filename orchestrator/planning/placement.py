"""How many trials a cluster takes at once, and what each asks Ray for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.money.node_price import ACCELERATOR_LABEL
from orchestrator.planning.node_types import (
    GROUP_LABEL,
    INSTANCE_LABEL,
    ClusterShape,
    Kind,
    NodeType,
)
from orchestrator.spec.sweep import SweepSpec

DEFAULT_MEMBERS = 16
"""Trials on one device when neither the sweep nor memory sets a lower number."""


class DoesNotFit(ValueError):
    """A trial needs more memory than any device has."""


@dataclass(frozen=True)
class Placement:
    """What a driver asks for."""

    device: str
    """`cpu` or `cuda`."""
    members: int
    """Trials on one device."""
    slots: int
    """Trials that there may be room for at once, on nodes that would still have to come as well."""
    cpus_per_trial: float
    gpus_per_trial: float
    num_nodes: int
    """Nodes that are up, as are the processors and GPUs below."""
    num_cpus: float
    num_gpus: float
    num_devices: float = 0.0
    """Devices on which `slots` were counted, also those that an autoscaler would still bring."""
    avoids: Mapping[str, str] = field(default_factory=dict)
    """Label selector that keeps trials off node types on which not even one fits."""
    notes: tuple[str, ...] = ()
    """What was decided that a person might wonder about."""


def device_kind(spec: SweepSpec, shape: ClusterShape) -> Kind:
    """Where a sweep's trials run: on GPUs if there are any, now or later, and they are wanted.

    Raises:
        DoesNotFit: no node has a device of the kind asked for, and none that has would come.
    """
    if spec.device != "cpu" and shape.with_device("cuda"):
        return "cuda"
    if spec.device == "cpu" and not shape.with_device("cpu"):
        raise DoesNotFit(
            "device: cpu was asked for, but no node has a whole core; use device: auto"
        )
    if spec.device == "cuda":
        raise DoesNotFit("device: cuda was asked for, but no node has a GPU; use device: auto")
    return "cpu"


def place(spec: SweepSpec, shape: ClusterShape, kind: Kind, fit: Mapping[str, int]) -> Placement:
    """Spread a sweep over the nodes of a cluster, those that an autoscaler may bring included.

    A trial asks for the same part of a device wherever it runs, since Ray chooses the node. So
    the device with the least memory decides among those that take any trial at all.

    Args:
        kind: of device.
        fit: trials that fit by memory on one device of each node type, by the type's name.
    """
    types = [t for t in shape.with_device(kind) if fit.get(t.name, 0) > 0]
    left_out = [t for t in shape.with_device(kind) if fit.get(t.name, 0) < 1]
    least = min((fit[t.name] for t in types), default=1)
    members = max(1, min(spec.pack.members or DEFAULT_MEMBERS, least, spec.trials))
    names = [t.name for t in types]
    devices = shape.num_devices(kind, names)
    cpus_per_device = [t.resources.get("CPU", 1.0) / t.per_node(kind) for t in types]
    avoids = _avoid(left_out, types) if left_out else {}
    return Placement(
        device=kind,
        members=members,
        slots=devices * members,
        cpus_per_trial=_round_down(min(cpus_per_device, default=1.0) / members),
        gpus_per_trial=_round_down(1.0 / members) if kind == "cuda" else 0.0,
        num_nodes=sum(t.num_up for t in shape.types),
        num_cpus=sum(t.num_up * t.resources.get("CPU", 0.0) for t in shape.types),
        num_gpus=sum(t.num_up * t.resources.get("GPU", 0.0) for t in shape.types),
        num_devices=float(devices),
        avoids=avoids,
        notes=tuple(_notes(kind, types, left_out, fit, avoids)),
    )


def _notes(
    kind: Kind,
    types: Sequence[NodeType],
    left_out: Sequence[NodeType],
    fit: Mapping[str, int],
    avoids: Mapping[str, str],
) -> list[str]:
    notes = []
    if len({fit[t.name] for t in types}) > 1:
        smallest = min(types, key=lambda t: fit[t.name])
        notes.append(
            f"{smallest.described(kind)} decides how much of a device trials ask for, wherever "
            f"they run: it has room for {fit[smallest.name]}"
        )
    for each in left_out:
        way = "trials keep off it" if avoids else "no label tells it apart: trials may land on it"
        notes.append(f"not even one trial fits on {each.described(kind)}; {way}")
    notes += [
        f"the memory of {t.described(kind)} is a guess ({t.device(kind).memory_bytes / 2**30:.0f} "
        f"GiB): label its nodes saeq-instance-type or ray.io/accelerator-type (A100-80G)"
        for t in types
        if kind == "cuda" and t.gpu_basis == "guessed"
    ]
    return notes


def _avoid(left_out: Sequence[NodeType], types: Sequence[NodeType]) -> dict[str, str]:
    """A label selector that no node of the first matches and every node of the others does."""
    keys = {key for t in left_out for key in t.labels}
    first = [ACCELERATOR_LABEL, INSTANCE_LABEL]
    for key in sorted(keys, key=lambda key: (key not in first, key == GROUP_LABEL, key)):
        unwanted = {t.labels.get(key) for t in left_out}
        if None not in unwanted and not unwanted & {t.labels.get(key) for t in types}:
            return {key: f"!in({','.join(sorted(str(value) for value in unwanted))})"}
    return {}


def _round_down(share: float) -> float:
    """Ray counts in steps of 1e-4; rounding up would leave the last trial without room."""
    return max(0.001, math.floor(share * 1000) / 1000)
