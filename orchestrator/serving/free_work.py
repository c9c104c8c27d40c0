"""Whether a driver started now would find something to do, or others hold all that is left.

A driver that finds nothing ends at once, and with it its clock of who is silent: who supervises has
to be the one that waits, or the trials of a machine that was switched off never become free.
"""

from __future__ import annotations

import logging

from orchestrator.control.current_spec import CurrentSpec
from orchestrator.log.events import Cancelled, DriverEnded, Suggested
from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import num_to_suggest
from orchestrator.needs.readiness import Needs
from orchestrator.queue import QueuedSweep
from orchestrator.spec.sweep import SweepSpec
from orchestrator.store import KeyMissing, Store
from orchestrator.trials.ends import Ends
from orchestrator.trials.leases import Leases

logger = logging.getLogger(__name__)


class FreeWork:
    """What is left of one sweep that nobody alive holds.

    Args:
        log: the sweep's, with a writer.
        leases: for tests, with a clock of theirs.
    """

    def __init__(
        self, store: Store, queued: QueuedSweep, log: SweepLog, leases: Leases | None = None
    ) -> None:
        assert log.writer is not None
        self._store, self._sweep, self._log = store, queued.id, log
        self._leases = leases or Leases(store, queued.id, log.writer.id)
        self._ends = Ends(store, queued.id, log)
        self._current_spec = CurrentSpec(store, queued.id, queued.spec)
        self._needs = Needs(store, queued.id, queued.spec.needs)
        self.spec: SweepSpec = queued.spec
        """As it was at the last look: a sweep may be extended while it runs."""
        self.why_not = ""
        """Why there was none at the last look; empty when there was."""
        self.is_hopeless = False
        """Whether, at the last look, nothing would change unless somebody did something."""

    def is_there(self) -> bool:
        """Whether some trial can be begun or gone on with.

        Ask again and again: a holder counts as gone once it was seen to be silent for 20 s, which
        is then noted in the log for everybody. The first look after the sweeps that this one needs
        are over fixes which of their artefacts it takes.
        """
        state = self._log.refresh()
        self.spec = self._current_spec.look(state)
        self.is_hopeless = False
        if state.cancelled_by:
            self._cancel_what_is_left(state, state.cancelled_by)
            self.why_not = f"cancelled by {state.cancelled_by}"
            return False
        waiting = self._needs.settle(self._log)
        if waiting is not None:
            self.why_not, self.is_hopeless = waiting.why, waiting.hopeless
            return False
        pause = state.controls.paused
        if pause is None and num_to_suggest(self.spec.trials, state):
            self.why_not = ""
            return True
        return self._is_among(state)

    def _is_among(self, state: SweepState) -> bool:
        """Whether one of the trials that were begun is free."""
        left = [trial for trial in state.by_number() if not trial.ended]
        going = [trial for trial in left if state.controls.pause_of(trial.id) is None]
        # Not only up to the first: each look moves its holder's silence on.
        is_free = sum(self._is_free(trial) for trial in going) > 0
        pause = state.controls.paused
        if is_free:
            self.why_not = ""
        elif going:
            self.why_not = "others hold all that is left"
        elif pause is not None:
            self.why_not = f"paused by {pause.by}"
        else:
            self.why_not = "all that is left is paused" if left else "nothing is left"
        return is_free

    def restore_suggestions(self) -> None:
        """Announce again the trials whose line in the log was lost; their claims still say them."""
        for trial in list(self._log.refresh().trials.values()):
            if trial.number >= 0:
                continue
            try:
                claim = self._store.read_json(self._store.layout.claim(self._sweep, trial.id))
            except KeyMissing:
                continue
            spec, config = self._current_spec.look(self._log.state), claim["config"]
            total = spec.kind.total_tokens(spec.setup, config)
            logger.warning("trial %s: its place in the log was lost; restored", trial.id)
            self._log.append(
                Suggested(trial=trial.id, number=claim["number"], config=config, total_tokens=total)
            )

    def _cancel_what_is_left(self, state: SweepState, by: str) -> None:
        """End what was suggested while the sweep was being cancelled; no driver starts for that."""
        for trial in state.by_number():
            if trial.ended or not self._is_free(trial):
                continue
            self._ends.decide(Cancelled(trial=trial.id, life=trial.life, by=by))
            self._ends.clear_up(trial.id)

    def _is_free(self, trial: TrialState) -> bool:
        holder = trial.holder if trial.status == "running" else self._newest_holder(trial)
        if holder is None or holder in self._log.state.ended_drivers:
            return True
        if not self._leases.is_silent(holder):
            return False
        self._log.append(DriverEnded(driver=holder, reason="silent for 20 s"))
        self._ends.clear_up_after(holder)
        return True

    def _newest_holder(self, trial: TrialState) -> str | None:
        """Who took a trial that the log calls free: perhaps died before saying so."""
        holder, epoch = None, trial.epoch + 1
        while True:
            key = self._store.layout.lease(self._sweep, trial.id, epoch)
            try:
                holder = str(self._store.read_json(key)["holder"])
            except KeyMissing:
                return holder
            epoch += 1
