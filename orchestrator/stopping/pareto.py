"""Stopping what is dominated: another trial is both as sparse and clearly more faithful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar, Literal

from pydantic import Field

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.spec.units import Tokens
from orchestrator.stopping.base import (
    Direction,
    StoppingConfig,
    Verdict,
    badness,
    compared_value,
    finite_value,
    geometric_rungs,
    in_words,
    quarter,
)
from orchestrator.stopping.strata import L0


class ParetoConfig(StoppingConfig):
    """Compare by (l0, metric), over the whole sweep unless strata are asked for.

    A trial is stopped when another one, at the same rung, has an l0 of at most
    (1 + l0_slack) times its own and the trial's metric is worse than the other's by more than
    `margin` of the other's. What is not finite is stopped; ties go on.
    """

    needed_metrics: ClassVar[tuple[str, ...]] = (L0,)

    scheduler: Literal["pareto"] = "pareto"
    grace: Tokens | None = Field(default=None, gt=0)
    """Nobody is stopped before this many tokens; not given: a quarter of a trial's."""
    reduction: float = Field(default=2, gt=1)
    """Rungs stand at grace * reduction^i tokens."""
    margin: float = Field(default=0.05, ge=0)
    """How much worse the metric has to be, as a share of the better trial's: early leads turn."""
    l0_slack: float = Field(default=0.05, ge=0)
    """How much less sparse the other one may be, as a share: equal k measures not quite equal."""

    def strata_or(self, default: Sequence[str]) -> tuple[str, ...]:
        del default
        return () if self.strata is None else self.strata

    def rungs(self, total_tokens: int) -> tuple[int, ...]:
        return geometric_rungs(self.grace or quarter(total_tokens), self.reduction, total_tokens)

    def judge(
        self,
        trial: TrialState,
        report: Reported,
        others: Mapping[str, Reported],
        *,
        metric: str,
        direction: Direction,
    ) -> Verdict:
        del trial
        value, l0 = compared_value(report, metric), _l0(report)
        rivals = {
            name: rival
            for name, other in others.items()
            if (rival := compared_value(other, metric)) is not None
            and _l0(other) <= l0 * (1 + self.l0_slack)
        }
        best = min(rivals, key=lambda name: (badness(rivals[name], direction), name), default=None)
        cutoff = None if best is None else self._cutoff(rivals[best], direction)
        stop = value is None or badness(value, direction) > badness(cutoff, direction)
        words = in_words(report, metric)
        if value is None:
            reason = words
        elif best is None:
            reason = f"{words}; nobody is as sparse"
        else:
            reason = (
                f"{words}, with l0 {l0:.4g}; "
                f"{best} reaches {rivals[best]:.4g} with l0 {_l0(others[best]):.4g}"
            )
        on_course = report.forecast is not None
        return Verdict(stop, self.scheduler, metric, value, cutoff, len(rivals), on_course, reason)

    def _cutoff(self, rival: float, direction: Direction) -> float:
        worse = self.margin * abs(rival)
        return rival + worse if direction == "min" else rival - worse


def _l0(report: Reported) -> float:
    l0 = finite_value(report, L0)
    return inf if l0 is None else l0
