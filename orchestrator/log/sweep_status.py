"""In one word: where a sweep stands, from its log alone."""

from __future__ import annotations

from typing import Literal

from orchestrator.log.state import SweepState

SweepStatus = Literal[
    "queued", "running", "interrupted", "paused", "finished", "failed", "cancelled"
]


def sweep_status(num_trials: int, state: SweepState) -> SweepStatus:
    """Say where a sweep stands.

    Args:
        num_trials: how many trials its search suggested when it was submitted; what the log says
            of extensions counts more.

    Returns:
        `finished`: nothing is left to suggest, every trial ended, and one at least was kept or
        was stopped early; `cancelled`: it was closed by a cancel, or all ended by cancels alone;
        `failed`: all ended, and none of them so; `paused`: nothing runs, and all that is left was
        told to stand still; `running`: a driver has not ended; `interrupted`: work is left that
        was begun, and nobody does it; `queued`: nobody has begun.
    """
    none_to_suggest = num_to_suggest(num_trials, state) == 0
    left = [trial for trial in state.trials.values() if not trial.ended]
    if none_to_suggest and not left:
        return _end(state)
    controls = state.controls
    may_suggest = not none_to_suggest and controls.paused is None
    stands_still = all(trial.status != "running" and controls.pause_of(trial.id) for trial in left)
    if stands_still and not may_suggest:
        return "paused"
    if any(driver.ended is None for driver in state.drivers.values()):
        return "running"
    return "interrupted" if state.trials or state.drivers else "queued"


def num_to_suggest(num_trials: int, state: SweepState) -> int:
    """How many trials its search has still to suggest, paused or not.

    Args:
        num_trials: how many it suggested in all when it was submitted.
    """
    if state.closed is not None:
        return 0
    total = state.controls.num_trials or num_trials
    return max(max(total, 1) - len(state.trials), 0)


def _end(state: SweepState) -> SweepStatus:
    counts = state.counts
    if state.cancelled_by:
        return "cancelled"
    if counts["finished"] or counts["stopped"]:
        return "finished"
    return "cancelled" if counts["cancelled"] else "failed"


def is_over(status: SweepStatus) -> bool:
    """Whether nothing more will happen unless somebody asks for it."""
    return status in ("finished", "failed", "cancelled")
