"""No early stopping: every trial runs to its end, guards aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.stopping.base import Direction, StoppingConfig, Verdict, finite_value


class NoneConfig(StoppingConfig):
    """Judge nothing; metric and strata still order the results."""

    scheduler: Literal["none"] = "none"

    def rungs(self, total_tokens: int) -> tuple[int, ...]:
        del total_tokens
        return ()

    def judge(
        self,
        trial: TrialState,
        report: Reported,
        others: Mapping[str, Reported],
        *,
        metric: str,
        direction: Direction,
    ) -> Verdict:
        del trial, others, direction
        value = finite_value(report, metric)
        return Verdict(
            False, self.scheduler, metric, value, None, 0, False, "early stopping is off"
        )
