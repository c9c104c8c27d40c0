"""Whether a driver started now would find something to do, or others hold all that is left.

A driver that finds nothing ends at once, and with it its clock of who is silent: who supervises has
to be the one that waits, or the trials of a machine that was switched off never become free.
"""

from __future__ import annotations

import logging

from orchestrator.log.events import DriverEnded, Suggested
from orchestrator.log.state import TrialState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.queue import QueuedSweep
from orchestrator.store import KeyMissing, Store
from orchestrator.trials.leases import Leases

logger = logging.getLogger(__name__)


class FreeWork:
    """What is left of one sweep that nobody alive holds."""

    def __init__(
        self, store: Store, queued: QueuedSweep, log: SweepLog, leases: Leases | None = None
    ) -> None:
        assert log.writer is not None
        self._store, self._queued, self._log = store, queued, log
        self._leases = leases or Leases(store, queued.id, log.writer.id)

    def is_there(self) -> bool:
        """Whether some trial can be begun or gone on with.

        Ask again and again: a holder counts as gone once it was seen to be silent for 20 s, which
        is then noted in the log for everybody.
        """
        state = self._log.refresh()
        if state.closed is None and len(state.trials) < self._queued.spec.trials:
            return True
        # Not only up to the first: each look moves its holder's silence on.
        free = [self._is_free(trial) for trial in state.by_number() if not trial.ended]
        return any(free)

    def restore_suggestions(self) -> None:
        """Announce again the trials whose line in the log was lost; their claims still say them."""
        for trial in list(self._log.refresh().trials.values()):
            if trial.number >= 0:
                continue
            try:
                claim = self._store.read_json(self._store.layout.claim(self._queued.id, trial.id))
            except KeyMissing:
                continue
            spec, config = self._queued.spec, claim["config"]
            total = spec.kind.total_tokens(spec.setup, config)
            logger.warning("trial %s: its place in the log was lost; restored", trial.id)
            self._log.append(
                Suggested(trial=trial.id, number=claim["number"], config=config, total_tokens=total)
            )

    def _is_free(self, trial: TrialState) -> bool:
        holder = trial.holder if trial.status == "running" else self._newest_holder(trial)
        if holder is None or holder in self._log.state.ended_drivers:
            return True
        if not self._leases.is_silent(holder):
            return False
        self._log.append(DriverEnded(driver=holder, reason="silent for 20 s"))
        return True

    def _newest_holder(self, trial: TrialState) -> str | None:
        """Who took a trial that the log calls free: perhaps died before saying so."""
        holder, epoch = None, trial.epoch + 1
        while True:
            key = self._store.layout.lease(self._queued.id, trial.id, epoch)
            try:
                holder = str(self._store.read_json(key)["holder"])
            except KeyMissing:
                return holder
            epoch += 1
