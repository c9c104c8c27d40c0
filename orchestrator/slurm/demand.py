"""How much work a store has that nobody holds: how many more worker jobs would find something."""

from __future__ import annotations

import logging

from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.log.sweep_status import is_over, num_to_suggest, sweep_status
from orchestrator.queue import DamagedSweep, Queue, UnknownSweep
from orchestrator.serving.free_work import FreeWork
from orchestrator.store import Store

logger = logging.getLogger(__name__)


LOOKS_BETWEEN = 6
"""A sweep that is over may be retried or extended: it is looked at again after so many looks."""


class Demand:
    """Looks at the queue again and again; the silence of those who hold trials is noticed, too."""

    def __init__(self, store: Store) -> None:
        self._store, self._queue = store, Queue(store)
        self._looked_at: dict[str, tuple[SweepLog, FreeWork]] = {}
        self._over: dict[str, int] = {}
        self._num_looks = 0

    def num_trials(self) -> int:
        """Trials that could be begun or gone on with now, if somebody were there.

        The holder of a trial counts as gone 20 s after it was first seen to be silent; the log says
        so from then on. Raises StoreError.
        """
        ids = self._queue.ids()
        self._num_looks += 1
        for sweep in [known for known in self._looked_at if known not in ids]:
            del self._looked_at[sweep]
        return sum(self._free_trials(sweep) for sweep in ids)

    def _free_trials(self, sweep: str) -> int:
        if self._num_looks < self._over.get(sweep, 0):
            return 0
        if sweep not in self._looked_at:
            try:
                queued = self._queue.get(sweep)
            except UnknownSweep:
                return 0
            except DamagedSweep as error:
                logger.info("%s", error)
                return 0
            log = SweepLog(self._store, sweep, LogWriter(self._store, sweep, role="keeper"))
            self._looked_at[sweep] = log, FreeWork(self._store, queued, log)
        log, free = self._looked_at[sweep]
        is_there = free.is_there()
        if is_over(sweep_status(free.spec.trials, log.state)):
            self._over[sweep] = self._num_looks + LOOKS_BETWEEN
            return 0
        if not is_there:
            return 0
        state = log.state
        waiting = [trial for trial in state.by_number() if trial.status == "queued"]
        going = sum(state.controls.pause_of(trial.id) is None for trial in waiting)
        to_suggest = 0 if state.controls.paused else num_to_suggest(free.spec.trials, state)
        return max(going + to_suggest, 1)
