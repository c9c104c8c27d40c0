"""Asynchronous successive halving, in strata (Li et al. 2020, arXiv 1810.05934).

The stopping variant: nobody is paused or promoted. A trial that comes to a rung goes on if it is
among the best floor(n / reduction) of the n trials of its stratum that came there so far, itself
included, compared by what it is on course for at its end (`trend`) unless the sweep asks for
values. While there are fewer than `reduction` of them it goes on only if it is the best so far,
as in Determined's asha_stopping.go, so the first one always goes on, and ties do. What is not
finite is worst and never goes on, not even alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

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
    geometric_rungs,
    in_words,
    quarter,
)
from orchestrator.stopping.strata import WHOLE_SWEEP


class AshaConfig(StoppingConfig):
    """Go on with the best 1 in `reduction` at each rung of a stratum."""

    scheduler: Literal["asha"] = "asha"
    grace: Tokens | None = Field(default=None, gt=0)
    """Nobody is stopped before this many tokens; not given: a quarter of a trial's. Too early a
    rung keeps what learns fastest at first: high learning rates lead before they lose."""
    reduction: float = Field(default=3, gt=1)
    """Distance of rungs, and the share that goes on: 3 means the best third."""

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
        value = compared_value(report, metric)
        num_kept = max(1, int((len(others) + 1) / self.reduction))
        ranked = sorted(
            (compared_value(other, metric) for other in others.values()),
            key=lambda v: badness(v, direction),
        )
        # Better than the num_kept-th of the others, or equal, is being among the best num_kept.
        cutoff = ranked[num_kept - 1] if num_kept <= len(ranked) else None
        stop = value is None or badness(value, direction) > badness(cutoff, direction)
        words = in_words(report, metric)
        among = f"the best {num_kept} of {len(others) + 1} in {_where(report.stratum)}"
        if value is None:
            reason = words
        elif cutoff is None:
            reason = f"{words}; nobody to compare with"
        else:
            reason = f"{words}; {among} reach {cutoff:.4g}"
        on_course = report.forecast is not None
        return Verdict(stop, self.scheduler, metric, value, cutoff, len(others), on_course, reason)


def _where(stratum: str | None) -> str:
    return "the sweep" if stratum in (None, "", WHOLE_SWEEP) else str(stratum)
