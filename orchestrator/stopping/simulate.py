"""What a rule would have kept and spent, from learning curves that were recorded in full. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.stopping.base import Direction, StoppingConfig, Verdict
from orchestrator.stopping.guards import GuardsConfig, GuardVerdict, judge_guards
from orchestrator.stopping.judgement import judge_standing
from orchestrator.stopping.strata import stratum_of

Curve = Sequence[tuple[int, Mapping[str, float | None]]]
"""(tokens, metrics) of every report of a trial that ran to its end, rising."""


@dataclass(frozen=True)
class Simulation:
    """How a sweep would have ended under a rule."""

    kept: tuple[str, ...]
    """Trials that ran to their end, in the order of the curves."""
    stopped: Mapping[str, Verdict]
    diverged: Mapping[str, GuardVerdict]
    tokens_by_trial: Mapping[str, int]
    full_tokens: int
    """What all trials together take without any stopping."""

    @property
    def tokens(self) -> int:
        """What was spent over all trials."""
        return sum(self.tokens_by_trial.values())

    @property
    def share(self) -> float:
        """Tokens spent over tokens of the full sweep."""
        return self.tokens / self.full_tokens


def simulate(
    rule: StoppingConfig,
    curves: Mapping[str, Curve],
    *,
    metric: str,
    direction: Direction,
    strata: Sequence[str],
    slots: int,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    guards: GuardsConfig | None = None,
) -> Simulation:
    """Replay curves under a rule.

    Trials start in the order of `curves` as slots become free; all live ones move at the same
    speed. A rung is judged at the first point at or past it, by the very functions that a sweep
    uses.

    Args:
        rule: what is tried out.
        curves: by trial, each with at least one point; the last one is the trial's end.
        metric: what is compared.
        direction: which way it is better.
        strata: see `stratum_of`.
        slots: how many trials are live at a time.
        configs: parameters by trial, for the strata.
        guards: the rules that are always on; None leaves them out.

    Raises:
        ValueError: there is no slot.
    """
    if slots < 1:
        raise ValueError(f"slots={slots} runs nothing; give at least 1")
    trials = {
        name: TrialState(name, number, (configs or {}).get(name, {}), curve[-1][0])
        for number, (name, curve) in enumerate(curves.items())
    }
    run = _Run(rule, metric, direction, strata, guards, list(trials.values()))
    _replay(run, trials, curves, slots)
    return Simulation(
        kept=tuple(name for name in trials if not trials[name].ended),
        stopped=run.stopped,
        diverged=run.diverged,
        tokens_by_trial={name: trial.tokens for name, trial in trials.items()},
        full_tokens=sum(trial.total_tokens for trial in trials.values()),
    )


def _replay(
    run: _Run, trials: Mapping[str, TrialState], curves: Mapping[str, Curve], slots: int
) -> None:
    waiting = list(trials)[::-1]
    live: list[tuple[int, int, str, int]] = []  # (when its next point comes, number, trial, index)

    def start(now: int) -> None:
        name = waiting.pop()
        heappush(live, (now + curves[name][0][0], trials[name].number, name, 0))

    for _ in range(min(slots, len(waiting))):
        start(0)
    while live:
        now, number, name, index = heappop(live)
        curve = curves[name]
        run.report(trials[name], *curve[index])
        if not trials[name].ended and index + 1 < len(curve):
            step = curve[index + 1][0] - curve[index][0]
            heappush(live, (now + step, number, name, index + 1))
        elif waiting:
            start(now)


@dataclass
class _Run:
    rule: StoppingConfig
    metric: str
    direction: Direction
    strata: Sequence[str]
    guards: GuardsConfig | None
    trials: list[TrialState]
    stopped: dict[str, Verdict] = field(default_factory=dict)
    diverged: dict[str, GuardVerdict] = field(default_factory=dict)

    def report(self, trial: TrialState, tokens: int, metrics: Mapping[str, float | None]) -> None:
        due: list[int | None] = [
            rung
            for rung in self.rule.rungs(trial.total_tokens)
            if trial.tokens < rung <= tokens < trial.total_tokens
        ]
        trial.tokens, trial.metrics = tokens, metrics
        stratum = stratum_of(trial.config, metrics, self.strata)
        report = Reported(trial=trial.id, tokens=tokens, metrics=metrics, stratum=stratum)
        guard = judge_guards(self.guards, trial.history, report) if self.guards else None
        trial.history.append((tokens, metrics))
        if guard is not None:
            self.diverged[trial.id], trial.status = guard, "diverged"
            return
        for rung in due or [None]:
            at_rung = report.model_copy(update={"rung": rung})
            judged = judge_standing(
                self.rule,
                trial,
                at_rung,
                self.trials,
                strata=self.strata,
                metric=self.metric,
                direction=self.direction,
            )
            if rung is not None:
                trial.rungs[rung] = judged[0] if judged is not None else at_rung
            if judged is not None and judged[1].stop:
                self.stopped[trial.id], trial.status = judged[1], "stopped"
                return
