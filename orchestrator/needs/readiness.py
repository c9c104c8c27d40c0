"""Whether the sweeps that a sweep needs are over, and the choice that is made once they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from orchestrator.log.events import NeedsMet
from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import is_over, num_to_suggest, sweep_status
from orchestrator.needs.selection import Candidate, candidates, select
from orchestrator.queue import DamagedSweep, Queue, UnknownSweep
from orchestrator.spec.sweep import Need, SweepSpec
from orchestrator.store import Store

LOOK_AGAIN_S = 2.0

Reference = Mapping[str, Any]
"""{"id", "kind", "sweep", "sha256"} of an artefact."""


@dataclass(frozen=True)
class Waiting:
    """A need that is not met."""

    why: str
    hopeless: bool = False
    """Whether nothing will change unless somebody does something."""


class Needs:
    """What one sweep needs of others. Looks are cheap when nothing has changed."""

    def __init__(self, store: Store, sweep: str, needs: Sequence[Need]) -> None:
        self._store, self._sweep, self._needs = store, sweep, tuple(needs)
        self._logs: dict[str, SweepLog] = {}
        self._told, self._told_at = "", -inf

    def look(self) -> list[Reference] | Waiting:
        """The artefacts as they would be chosen now, or the first need that is not met.

        Raises StoreError.
        """
        chosen: list[Reference] = []
        for need in self._needs:
            found = self._look_at(need)
            if isinstance(found, Waiting):
                return found
            chosen.extend(reference for reference in found if reference not in chosen)
        return chosen

    def why_unmet(self) -> str:
        """For people: which sweep it waits for; looks at most every `LOOK_AGAIN_S` seconds."""
        now = time.monotonic()
        if now - self._told_at >= LOOK_AGAIN_S:
            found = self.look()
            self._told = found.why if isinstance(found, Waiting) else ""
            self._told_at = now
        return self._told

    def settle(self, log: SweepLog) -> Waiting | None:
        """Fix the choice for good as soon as it can be made; None once it is fixed.

        Of several processes that choose at once the one that creates the record decides, and all
        go by what it says.

        Args:
            log: the waiting sweep's own, with a writer.
        """
        if not self._needs or log.state.needs_met is not None:
            return None
        key = self._store.layout.inputs(self._sweep)
        if not self._store.backend.exists(key):
            chosen = self.look()
            if isinstance(chosen, Waiting):
                return chosen
            self._store.create_json(key, {"artefacts": chosen})
        log.append(NeedsMet(artefacts=tuple(self._store.read_json(key)["artefacts"])))
        return None

    def _look_at(self, need: Need) -> list[Reference] | Waiting:
        try:
            other = Queue(self._store).get(need.sweep).spec
        except UnknownSweep:
            return Waiting(f"waits for {need.sweep}, which is not in the store", hopeless=True)
        except DamagedSweep as error:
            return Waiting(f"waits for {need.sweep}: {error}", hopeless=True)
        log = self._logs.setdefault(need.sweep, SweepLog(self._store, need.sweep))
        state = log.refresh()
        status = sweep_status(other.trials, state)
        if not is_over(status):
            num_ended = sum(trial.ended for trial in state.trials.values())
            total = len(state.trials) + num_to_suggest(other.trials, state)
            return Waiting(f"waits for {need.sweep}: {status}, {num_ended} of {total} trials ended")
        picked = select(need.select, candidates(state.trials.values()), other)
        if not picked:
            return Waiting(_in_vain(need, status), hopeless=True)
        return self._references(need, other, picked)

    def _references(
        self, need: Need, other: SweepSpec, picked: Sequence[Candidate]
    ) -> list[Reference] | Waiting:
        """With the hash of what is really there: a record must name what a child was given."""
        kind = other.kind.artefact_kind
        found: list[Reference] = []
        for candidate in picked:
            files = self._store.files(self._store.layout.artefact(kind, candidate.artefact))
            if files is None:
                why = f"{need.sweep}'s artefact {candidate.artefact} is not whole in the store"
                return Waiting(f"waits for {why}: cancel this sweep", hopeless=True)
            found.append(
                {
                    "id": candidate.artefact,
                    "kind": kind,
                    "sweep": need.sweep,
                    "sha256": files.sha256,
                }
            )
        return found


def _in_vain(need: Need, status: str) -> str:
    such = f" where {need.select.where}" if need.select.where else ""
    return (
        f"waits for {need.sweep}: {status} without an artefact{such}, so this never starts; "
        "cancel it or extend that sweep"
    )
