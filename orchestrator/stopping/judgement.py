"""When a trial is judged: at each rung, and again at every later report.

Trials that run side by side come to a rung in the same moment, and whoever is first has nobody to
be compared with. Judging by arrival alone (asynchronous halving as published) lets these first
ones pass rung after rung. So a trial's standing at the highest rung it has passed is looked at
again at each of its reports, against everybody who has come there since. That also judges a trial
whose driver died between its report at the rung and the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.stopping.base import Direction, StoppingConfig, Verdict
from orchestrator.stopping.strata import compared_with
from orchestrator.stopping.trend import on_course_for


def judge_standing(
    rule: StoppingConfig,
    trial: TrialState,
    report: Reported,
    trials: Iterable[TrialState],
    *,
    strata: Sequence[str],
    metric: str,
    direction: Direction,
) -> tuple[Reported, Verdict] | None:
    """Judge a trial at a report; None while it has passed no rung, at its end, and
    where the rule does not look again.

    Args:
        report: its newest report; its `rung` is set when it stands at a new one.
        trials: all trials of the sweep.

    Returns:
        The report at the rung that was judged, with its forecast, and the verdict.
    """
    if report.tokens >= trial.total_tokens:
        return None  # nothing is left to be saved
    at_rung = _with_forecast(rule, trial, report, metric, direction) if report.rung else None
    if at_rung is None and rule.rejudge and trial.rungs:
        at_rung = trial.rungs[max(trial.rungs)]
    if at_rung is None:
        return None
    others = compared_with(trials, at_rung, strata)
    verdict = rule.judge(trial, at_rung, others, metric=metric, direction=direction)
    return at_rung, verdict


def _with_forecast(
    rule: StoppingConfig, trial: TrialState, report: Reported, metric: str, direction: Direction
) -> Reported:
    if rule.judge_by != "trend":
        return report
    before = [point for point in trial.history if point[0] < report.tokens]
    history = [*before, (report.tokens, report.metrics)]
    forecast = on_course_for(history, metric, direction, trial.total_tokens)
    return report.model_copy(update={"forecast": forecast})
