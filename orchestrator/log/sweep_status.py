"""In one word: where a sweep stands, from its log alone."""

from __future__ import annotations

from typing import Literal

from orchestrator.log.state import SweepState

SweepStatus = Literal["queued", "running", "interrupted", "finished", "failed", "cancelled"]


def sweep_status(num_trials: int, state: SweepState) -> SweepStatus:
    """Say where a sweep stands.

    Args:
        num_trials: how many trials its search will suggest.

    Returns:
        `finished`: nothing is left to suggest, every trial ended, and one at least was kept or
        was stopped early; `cancelled`: it was closed by a cancel, or all ended by cancels alone;
        `failed`: all ended, and none of them so; `running`: a driver has not ended;
        `interrupted`: work is left that was begun, and nobody does it; `queued`: nobody has begun.
    """
    all_suggested = state.closed is not None or len(state.trials) >= max(num_trials, 1)
    if all_suggested and all(trial.ended for trial in state.trials.values()):
        return _end(state)
    if any(driver.ended is None for driver in state.drivers.values()):
        return "running"
    return "interrupted" if state.trials or state.drivers else "queued"


def _end(state: SweepState) -> SweepStatus:
    counts = state.counts
    if state.closed is not None and state.closed.reason.startswith("cancelled"):
        return "cancelled"
    if counts["finished"] or counts["stopped"]:
        return "finished"
    return "cancelled" if counts["cancelled"] else "failed"


def is_over(status: SweepStatus) -> bool:
    """Whether nothing more will happen unless somebody asks for it."""
    return status in ("finished", "failed", "cancelled")
