"""Memory when sweeps of different streams share a device: each stream is a language model more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.kind import Footprint
from orchestrator.planning.devices import DeviceProfile
from orchestrator.planning.largest_trial import largest_of
from orchestrator.planning.node_types import ClusterShape, Kind, NodeType
from orchestrator.planning.placement import DEFAULT_MEMBERS, DoesNotFit, device_kind
from orchestrator.planning.plan import suggested
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.units import format_bytes


@dataclass(frozen=True)
class SweepMemory:
    """What a sweep needs of a device, in bytes, by its job kind's formula."""

    stream: str
    """Sweeps that have it in common share their packs, and so pay for it once."""
    shared_bytes: int
    trial_bytes: int
    """Of its largest trial."""
    most_members: int
    """Trials on one device, however much memory there is."""
    on_cpu: SweepMemory | None = None
    """What holds on a CPU, where that differs."""

    def on(self, kind: str) -> SweepMemory:
        """What holds on a device: `cpu` or `cuda`."""
        return self.on_cpu if kind == "cpu" and self.on_cpu is not None else self

    def members(self, usable_bytes: int) -> int:
        """Its trials that fit on a device beside its stream."""
        room = usable_bytes - self.shared_bytes
        return max(0, min(self.most_members, room // max(self.trial_bytes, 1)))


def memory_of(spec: SweepSpec) -> SweepMemory:
    """Arithmetic alone: nothing is loaded."""
    footprints = [spec.kind.footprint(spec.setup, config) for config in suggested(spec)]
    return _memory(spec, largest_of(footprints))


def _memory(spec: SweepSpec, largest: Footprint) -> SweepMemory:
    return SweepMemory(
        stream=spec.kind.shared_key(spec.setup),
        shared_bytes=largest.shared_bytes,
        trial_bytes=largest.trial_bytes,
        most_members=max(1, min(spec.pack.members or DEFAULT_MEMBERS, spec.trials)),
        on_cpu=None if largest.on_cpu is None else _memory(spec, largest.on_cpu),
    )


def device_for(spec: SweepSpec, memory: SweepMemory, shape: ClusterShape) -> DeviceProfile:
    """The device that a sweep is planned with: the smallest of those that take one of its trials.

    `num_devices` counts those that there may be, also the ones that an autoscaler would bring.
    What fits nowhere, or asks for a device that is not there, gets the largest there is: its
    driver says so.
    """
    kind: Kind
    try:
        kind = device_kind(spec, shape)
    except DoesNotFit:
        kind = "cpu" if shape.with_device("cpu") else "cuda"
    types = shape.with_device(kind)

    def usable(node_type: NodeType) -> int:
        return node_type.device(kind).usable_bytes

    roomy = [t for t in types if memory.on(kind).members(usable(t))]
    smallest = min(roomy or [max(types, key=usable)], key=usable)
    names = [t.name for t in roomy or types]
    update = {"num_devices": shape.num_devices(kind, names)}
    return smallest.device(kind).model_copy(update=update)


def left_beside(others: Sequence[SweepMemory], own: SweepMemory, usable_bytes: int) -> int:
    """What a sweep may plan with on a device beside the streams of others, in bytes."""
    by_stream: dict[str, int] = {}
    for other in others:
        if other.stream != own.stream:
            known = by_stream.get(other.stream, 0)
            by_stream[other.stream] = max(known, other.shared_bytes)
    return usable_bytes - sum(by_stream.values())


def why_no_room(others: Sequence[SweepMemory], own: SweepMemory, usable_bytes: int) -> str:
    """Why a sweep cannot be worked beside others now; empty when it can.

    Alone it is let through: what fits nowhere at all is its driver's to say.
    """
    if not others:
        return ""
    for who, beside in [(own, others), *_each_beside(others, own)]:
        left = left_beside(beside, who, usable_bytes)
        if who.members(left) < 1:
            return (
                f"waits for memory: it needs {format_bytes(own.shared_bytes)} for its language "
                f"model and {format_bytes(own.trial_bytes)} a trial; beside what the sweeps that "
                f"are being worked on need, {format_bytes(max(left, 0))} of "
                f"{format_bytes(usable_bytes)} would be left"
            )
    return ""


def _each_beside(
    others: Sequence[SweepMemory], own: SweepMemory
) -> list[tuple[SweepMemory, list[SweepMemory]]]:
    return [(other, [own, *(each for each in others if each is not other)]) for other in others]
