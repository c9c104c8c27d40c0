"""How a trial ended: one object in the store for each of its lives; whoever creates it decides."""

from __future__ import annotations

from orchestrator.log.events import (
    Cancelled,
    Diverged,
    Failed,
    Finished,
    Stopped,
    TrialEvent,
)
from orchestrator.log.sweep_log import SweepLog
from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints

_ENDS: dict[str, type[TrialEvent]] = {
    "stopped": Stopped,
    "diverged": Diverged,
    "failed": Failed,
    "finished": Finished,
    "cancelled": Cancelled,
}

JUST_BEFORE_ITS_DEATH_S = 60.0
"""By the dead driver's own clock: only its last ends can be without what follows them."""


class Ends:
    """Ends of the trials of one sweep, decided in the store and told in its log.

    Args:
        log: the sweep's, with a writer.
    """

    def __init__(self, store: Store, sweep: str, log: SweepLog) -> None:
        self._store, self._sweep, self._log = store, sweep, log

    def decide(self, event: TrialEvent) -> bool:
        """Try to be the one who says how a trial's life ends; False when somebody else was.

        The winner says so in the log. The others repeat it there if the winner has not: perhaps
        it died in between.
        """
        key = self._store.layout.end(self._sweep, event.trial, event.life)
        if self._store.create_json(key, event.model_dump(mode="json")):
            self._log.append(event)
            return True
        self.announce(event.trial, event.epoch, event.life)
        return False

    def announce(self, trial: str, epoch: int, life: int) -> bool:
        """Tell an end that was decided and perhaps never told; False when there is none.

        Args:
            epoch: the lease under which it is told.
        """
        key = self._store.layout.end(self._sweep, trial, life)
        if not self._store.backend.exists(key):
            return False
        end = self._store.read_json(key)
        known = self._log.refresh().trials.get(trial)
        if known is None or not known.ended:
            about = {**end, "epoch": epoch, "life": life}
            self._log.append(_ENDS[end["event"]].model_validate(about))
        return True

    def clear_up_after(self, driver: str) -> None:
        """What a driver that died may have left behind: it told an end, and went no further."""
        trials = [t for t in self._log.state.trials.values() if t.holder == driver and t.ended_at]
        newest = max((t.ended_at or 0.0 for t in trials), default=0.0)
        for trial in trials:
            if (trial.ended_at or 0.0) >= newest - JUST_BEFORE_ITS_DEATH_S:
                self.clear_up(trial.id)

    def clear_up(self, trial: str) -> None:
        """Remove the checkpoints of a trial that has ended and that nobody holds any more.

        Those of a failed one stay: it may be retried when what it failed by is mended.
        """
        state = self._log.state.trials[trial]
        if state.ended and state.status != "failed":
            Checkpoints(self._store, self._sweep, trial).remove_all()
