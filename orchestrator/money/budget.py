"""How much of a sweep's budget is used up, and what follows from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from orchestrator.log.state import SweepState, TrialState
from orchestrator.money.machine_time import machine_use

WARN_FROM = 0.8
"""Share of a budget from which on a person is told."""
BUDGET_RULE = "budget"
"""Rule of a `Stopped` event that says: not bad, but there is no more money or time."""


@dataclass(frozen=True)
class BudgetUse:
    """What is spent, beside the limits. A limit of None is none."""

    usd: float
    """Device time of all trials, running ones too, at the prices noted when they began."""
    usd_limit: float | None
    hours: float
    """Time in which a driver was alive."""
    hours_limit: float | None

    @property
    def share(self) -> float | None:
        """The larger used share of the limits; None without a limit."""
        shares = [
            used / limit if limit > 0 else inf
            for used, limit in ((self.usd, self.usd_limit), (self.hours, self.hours_limit))
            if limit is not None
        ]
        return max(shares, default=None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Each limit and how much of it is used, in words."""
        usd, hours = self.usd_limit, self.hours_limit
        return (
            *([f"${self.usd:.2f} of ${usd:.2f}"] if usd is not None else []),
            *([f"{self.hours:.2f} of {hours:g} hours"] if hours is not None else []),
        )

    @property
    def warning(self) -> str | None:
        """What to tell a person once, from `WARN_FROM` on."""
        if self.share is None or self.share < WARN_FROM:
            return None
        return f"{' and '.join(self.parts)} used"

    @property
    def spent(self) -> str | None:
        """Why no further trial is suggested; None while something is left."""
        if self.usd_limit is not None and self.usd >= self.usd_limit:
            return f"budget: ${self.usd:.2f} of ${self.usd_limit:.2f} are spent"
        if self.hours_limit is not None and self.hours >= self.hours_limit:
            return f"budget: {self.hours:.2f} of {self.hours_limit:g} hours are over"
        return None


def ended_by_budget(trial: TrialState) -> bool:
    """Whether a trial was stopped for want of money or time: nothing bad was saved by that."""
    return trial.stop is not None and trial.stop.rule == BUDGET_RULE


def budget_use(
    state: SweepState,
    usd_limit: float | None,
    hours_limit: float | None,
    now: float,
    alive: Collection[str] = (),
) -> BudgetUse:
    """Where a sweep stands with its budget.

    Args:
        now: seconds since 1970.
        alive: drivers that are known to live now.
    """
    return BudgetUse(
        usd=sum(trial.usd for trial in state.trials.values()),
        usd_limit=usd_limit,
        hours=machine_use(state.drivers.values(), now, alive).wall_seconds / 3600,
        hours_limit=hours_limit,
    )
