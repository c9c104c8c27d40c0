"""Whether there is time to begin a trial: whoever works here has to end at some moment.

A trial that is asked to stop saves what it has; begun too late, it would have nothing to save.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from statistics import median

from orchestrator.log.state import SweepState, TrialState

DEFAULT_START_S = 40.0
"""From the lease to the first step, where nobody has seen one: most of it loads the model. With
what is added to it below, a minute."""
SAVE_S = 10.0
"""For a first checkpoint."""
DRIVER_START_S = 10.0
NUM_OBSERVED = 5


def start_seconds(state: SweepState, host: str) -> float:
    """How long it takes from a lease to the first step: the median of the last ones.

    On this host, else anywhere in this sweep, else a guess.
    """
    starts = [trial for trial in state.trials.values() if _start_of(trial) is not None]
    here = [trial for trial in starts if trial.started is not None and trial.started.host == host]
    newest = sorted(here or starts, key=_started_at)[-NUM_OBSERVED:]
    seconds = [found for trial in newest if (found := _start_of(trial)) is not None]
    return median(seconds) if seconds else DEFAULT_START_S


def _started_at(trial: TrialState) -> float:
    return trial.started.at if trial.started is not None else 0.0


def _start_of(trial: TrialState) -> float | None:
    """Both are noted by the trial's driver: one clock."""
    started = trial.started
    if started is None or started.epoch != trial.epoch or not trial.leased_at:
        return None
    return max(started.at - trial.leased_at, 0.0)


class TimeLeft:
    """The time until what runs here is asked to stop.

    Args:
        ends_at: when that is, by `clock`, in seconds.
        host: name of this machine.
    """

    def __init__(
        self, ends_at: float = inf, host: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ends_at, self._host, self._clock = ends_at, host, clock
        self.why_not = ""
        """Why nothing was begun when it was last asked; empty when there was time."""

    @property
    def left_s(self) -> float:
        """Seconds until then; infinite where nobody set an end."""
        return self._ends_at - self._clock()

    def is_short(self, state: SweepState, before_s: float = 0.0) -> bool:
        """Whether no trial of a sweep should be begun any more.

        Args:
            before_s: what has to be done before it can be leased, such as starting a driver.
        """
        self.why_not = ""
        left_s = self.left_s
        if left_s == inf:
            return False
        needed_s = start_seconds(state, self._host) + SAVE_S + before_s
        if left_s < needed_s:
            self.why_not = (
                f"not begun: {max(left_s, 0.0):.0f} s are left, and starting a trial and saving "
                f"what it did takes {needed_s:.0f} s"
            )
        return bool(self.why_not)
