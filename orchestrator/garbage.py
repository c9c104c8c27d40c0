"""What nothing in the store refers to any more: found from the logs, removed on request.

Whatever a running trial may need is left alone, and so are leases, ends and logs, which decide
races and tell what happened.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.nodes.records import read_nodes
from orchestrator.store import MANIFEST, KeyMissing, Store
from orchestrator.store.backend import Entry, LeftOver
from orchestrator.trials.checkpoints import tokens_and_epoch

UNFINISHED_AFTER_S = 3600.0
"""Younger ones may be on their way. By the store's own clock."""

OF_ENDED = "checkpoints of ended trials"
CUT_OFF = "checkpoints cut off"
NO_MANIFEST = "artefacts cut off"
LEFT_OVER = "writes cut off"
OLD_ORDERS = "orders to past leases"
OLD_NODES = "nodes long silent"
KINDS = (OF_ENDED, CUT_OFF, NO_MANIFEST, LEFT_OVER, OLD_ORDERS, OLD_NODES)
NODES_AFTER_S = 7 * 24 * 3600.0
"""Not heard of for so long, by the clocks of who wrote of them."""

_CHECKPOINT = re.compile(r"(sweeps/[^/]+/trials/([^/]+)/checkpoints/([^/]+)/)[^~]+")
_GIVE_BACK = re.compile(r"sweeps/[^/]+/trials/([^/]+)/give_back/(\d+)\.json")
_ARTEFACT = re.compile(r"(artefacts/[^/]+/([^/]+)/).+")


@dataclass(frozen=True)
class Garbage:
    """One thing to remove."""

    kind: str
    """One of `KINDS`."""
    place: str
    """A key, or a prefix that ends in '/'."""
    num_bytes: int
    left_over: LeftOver | None = None


class GarbageSearch:
    """Goes through a store once; `remove` looks again before it removes anything.

    Args:
        unfinished_after_s: age in seconds from which on an unfinished write counts as cut off.
    """

    def __init__(self, store: Store, unfinished_after_s: float = UNFINISHED_AFTER_S) -> None:
        self._store = store
        self._unfinished_after_s = unfinished_after_s

    def find(self) -> list[Garbage]:
        """Everything, kind by kind."""
        states = {sweep: self._state(sweep) for sweep in self._sweeps()}
        found = [one for sweep, state in states.items() for one in self._in_sweep(sweep, state)]
        found += self._artefacts(states)
        found += self._left_overs(states)
        found += self._nodes()
        return sorted(found, key=lambda one: (KINDS.index(one.kind), one.place))

    def remove(self, wanted: Iterable[Garbage]) -> list[Garbage]:
        """Remove what is still garbage; returns what was removed."""
        places = {(one.kind, one.place) for one in wanted}
        removed = [one for one in self.find() if (one.kind, one.place) in places]
        for one in removed:
            self._remove(one)
        return removed

    def _remove(self, one: Garbage) -> None:
        if one.left_over is not None:
            self._store.backend.remove_left_over(one.left_over)
        elif one.place.endswith("/"):
            self._store.delete_files(one.place)
        else:
            self._store.backend.delete(one.place)

    def _sweeps(self) -> list[str]:
        return self._store.backend.children(self._store.layout.sweeps)

    def _state(self, sweep: str) -> SweepState:
        return SweepLog(self._store, sweep).refresh()

    def _in_sweep(self, sweep: str, state: SweepState) -> Iterator[Garbage]:
        """Checkpoints and orders, from one listing of the sweep's trials."""
        objects_by_set: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in self._store.backend.entries(f"{self._store.layout.sweep(sweep)}trials/"):
            checkpoint, order = _CHECKPOINT.fullmatch(entry.key), _GIVE_BACK.fullmatch(entry.key)
            if checkpoint:
                its_set = (checkpoint[1], checkpoint[2], checkpoint[3])
                objects_by_set.setdefault(its_set, []).append(entry)
            elif order and _is_past(state.trials.get(order[1]), int(order[2])):
                yield Garbage(OLD_ORDERS, entry.key, entry.num_bytes)
        for (prefix, trial_id, name), objects in objects_by_set.items():
            trial, num_bytes = state.trials.get(trial_id), _sum(objects)
            if trial is not None and trial.ended and trial.status != "failed":  # to be retried
                yield Garbage(OF_ENDED, prefix, num_bytes)
            elif self._is_cut_off(objects) and not _is_covered(trial, name):
                yield Garbage(CUT_OFF, prefix, num_bytes)

    def _artefacts(self, states: dict[str, SweepState]) -> Iterator[Garbage]:
        running = _artefacts_under_way(states)
        objects_by_set: dict[tuple[str, str], list[Entry]] = {}
        for entry in self._store.backend.entries(self._store.layout.artefacts):
            named = _ARTEFACT.fullmatch(entry.key)
            if named:
                objects_by_set.setdefault((named[1], named[2]), []).append(entry)
        for (prefix, artefact), objects in objects_by_set.items():
            if artefact not in running and self._is_cut_off(objects):
                yield Garbage(NO_MANIFEST, prefix, _sum(objects))

    def _left_overs(self, states: dict[str, SweepState]) -> Iterator[Garbage]:
        running = _artefacts_under_way(states)
        for one in self._store.backend.left_overs():
            artefact = _ARTEFACT.match(one.name)
            if one.age_s < self._unfinished_after_s or (artefact and artefact[2] in running):
                continue
            if not _travels_now(one.name, states):
                yield Garbage(LEFT_OVER, one.name, one.num_bytes, one)

    def _nodes(self) -> Iterator[Garbage]:
        for record in read_nodes(self._store):
            if time.time() - record.heard_at > NODES_AFTER_S:
                prefix = f"{self._store.layout.nodes}{record.id}/"
                yield Garbage(OLD_NODES, prefix, _sum(self._store.backend.entries(prefix)))

    def _is_cut_off(self, objects: list[Entry]) -> bool:
        """Whether a set has no manifest, and nobody added to it for a while."""
        if any(entry.key.endswith(f"/{MANIFEST}") for entry in objects):
            return False
        return all(self._is_old(entry.key) for entry in objects)

    def _is_old(self, key: str) -> bool:
        try:
            return self._store.backend.age_s(key) >= self._unfinished_after_s
        except KeyMissing:
            return False  # somebody is at work there


def _is_past(trial: TrialState | None, epoch: int) -> bool:
    return trial is not None and (trial.ended or epoch < trial.epoch)


def _is_covered(trial: TrialState | None, checkpoint: str) -> bool:
    """Whether a live lease is the one that a checkpoint is written under."""
    named = tokens_and_epoch(checkpoint)
    if trial is None or named is None:
        return True  # a log that is not read yet, or nothing of ours
    return trial.status == "running" and named[1] >= trial.epoch


def _artefacts_under_way(states: dict[str, SweepState]) -> set[str]:
    return {
        f"{sweep}-{trial.id}"
        for sweep, state in states.items()
        for trial in state.trials.values()
        if trial.status == "running"
    }


def _travels_now(name: str, states: dict[str, SweepState]) -> bool:
    """Whether an unfinished write is part of a checkpoint that a live lease covers."""
    named = re.match(r"sweeps/([^/]+)/trials/([^/]+)/checkpoints/([^/]+)/", name)
    if not named or named[1] not in states:
        return False
    return _is_covered(states[named[1]].trials.get(named[2]), named[3])


def _sum(objects: Iterable[Entry]) -> int:
    return sum(entry.num_bytes for entry in objects)
