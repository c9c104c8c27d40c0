"""Which sweeps get a driver here now, how many slots each may hold, and why the others wait."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.planning.devices import DeviceProfile
from orchestrator.planning.node_types import ClusterShape
from orchestrator.serving.room import SweepMemory, device_for, left_beside, memory_of, why_no_room
from orchestrator.serving.shares import shares
from orchestrator.serving.sweep_worker import SweepWorker

TURN_DEVICE_S = 120.0
"""How much device time a sweep that has a driver may be ahead before it loses its turn."""

NOT_LOOKED = "waits until the cluster has said what it has"
NO_NODES = "waits for nodes: none has a GPU or a core, and no autoscaler brings one"


@dataclass(frozen=True)
class Allotment:
    """What each sweep gets."""

    slots: dict[str, int | None] = field(default_factory=dict)
    """Trials that a sweep's driver may hold; None: no limit, it is alone. Absent: no driver."""
    usable_bytes: dict[str, int] = field(default_factory=dict)
    """What a sweep may plan with on a device; absent: its driver looks for itself."""
    why_not: dict[str, str] = field(default_factory=dict)
    """Why a sweep that could be worked on gets no driver now."""


class Allotter:
    """Remembers what does not change: what each sweep needs of a device."""

    def __init__(self, max_sweeps: int, shape: Callable[[], ClusterShape | None]) -> None:
        """
        Args:
            max_sweeps: sweeps with a driver at once.
            shape: what there is to put trials on, now; None while nobody knows.
        """
        self._max_sweeps, self._shape_now = max_sweeps, shape
        self._shape = ClusterShape()
        self._memory: dict[str, SweepMemory] = {}

    def allot(self, workers: Sequence[SweepWorker]) -> Allotment:
        """For the sweeps that have a driver or could use one."""
        allotment = Allotment()
        shape = self._shape_now()
        if shape is None or shape.is_empty:
            why = NOT_LOOKED if shape is None else NO_NODES
            allotment.why_not.update({w.queued.id: why for w in workers if w.phase == "waiting"})
            return allotment
        self._shape = shape
        ranked = sorted((w for w in workers if w.phase == "driving" or w.may_start), key=_rank)
        chosen = self._choose(ranked, allotment)
        for _, peers in itertools.groupby(sorted(chosen, key=self._kind), key=self._kind):
            self._share(list(peers), allotment)
        return allotment

    def _choose(self, ranked: Sequence[SweepWorker], allotment: Allotment) -> list[SweepWorker]:
        chosen: list[SweepWorker] = []
        for worker in ranked:
            if len(chosen) >= self._max_sweeps:
                why = f"waits for its turn: {self._max_sweeps} sweeps are being worked on"
            else:
                peers = [self._memory_of(c) for c in chosen if self._kind(c) == self._kind(worker)]
                usable = self._device(worker).usable_bytes
                why = why_no_room(peers, self._memory_of(worker), usable)
            if why:
                allotment.why_not[worker.queued.id] = why
            else:
                chosen.append(worker)
        return chosen

    def _share(self, peers: list[SweepWorker], allotment: Allotment) -> None:
        if len(peers) == 1:
            allotment.slots[peers[0].queued.id] = None
            return
        for worker in peers:
            left = self._left_for(worker, peers)
            if left < self._device(worker).usable_bytes:
                allotment.usable_bytes[worker.queued.id] = left
        claims = [w.claim(max(1, self._members(w, peers))) for w in peers]
        num_devices = max(max(self._device(w).num_devices, w.num_devices()) for w in peers)
        allotment.slots.update(shares(claims, num_devices))
        for worker in peers:
            if worker.phase != "driving" and not allotment.slots[worker.queued.id]:
                del allotment.slots[worker.queued.id]
                allotment.why_not[worker.queued.id] = "waits for its turn: others hold all slots"
            elif worker.phase != "driving" and self._must_end_first(worker, peers, allotment):
                del allotment.slots[worker.queued.id]
                why = "waits for memory: trials that run now have to end before its model fits"
                allotment.why_not[worker.queued.id] = why

    def _must_end_first(
        self, worker: SweepWorker, peers: Sequence[SweepWorker], allotment: Allotment
    ) -> bool:
        """Whether trials were begun when there was room for more of them than there is now."""
        stream = self._memory_of(worker).stream
        for peer in peers:
            memory = self._memory_of(peer)
            if peer.phase != "driving" or memory.stream == stream:
                continue
            alone = memory.members(self._device(peer).usable_bytes)
            if self._members(peer, peers) < alone and peer.num_running() > (
                allotment.slots.get(peer.queued.id) or 0
            ):
                return True
        return False

    def _members(self, worker: SweepWorker, peers: Sequence[SweepWorker]) -> int:
        return self._memory_of(worker).members(self._left_for(worker, peers))

    def _left_for(self, worker: SweepWorker, peers: Sequence[SweepWorker]) -> int:
        others = [self._memory_of(peer) for peer in peers if peer is not worker]
        usable = self._device(worker).usable_bytes
        return left_beside(others, self._memory_of(worker), usable)

    def _kind(self, worker: SweepWorker) -> str:
        return self._device(worker).kind

    def _device(self, worker: SweepWorker) -> DeviceProfile:
        return device_for(worker.spec, self._needs_of(worker), self._shape)

    def _memory_of(self, worker: SweepWorker) -> SweepMemory:
        """On the device that it is planned with."""
        return self._needs_of(worker).on(self._kind(worker))

    def _needs_of(self, worker: SweepWorker) -> SweepMemory:
        sweep = worker.queued.id
        if sweep not in self._memory:
            self._memory[sweep] = memory_of(worker.spec)
        return self._memory[sweep]


def _rank(worker: SweepWorker) -> tuple[float, float, float]:
    """Higher priority first; of equals who was served least, but not for every second's work."""
    ahead = TURN_DEVICE_S if worker.phase == "driving" else 0.0
    return (-worker.priority, worker.served_device_s - ahead, worker.queued.submitted_at)
