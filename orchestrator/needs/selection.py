"""Which of a finished sweep's artefacts are taken: `best`, `top`, `all`, `pareto`, `where`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from jobs import JobKind
from jobs.kind import Metric
from orchestrator.log.state import TrialState
from orchestrator.needs.where import parse_where
from orchestrator.results.frontier import Point, pareto
from orchestrator.spec.sweep import NeedSelect, SweepSpec

COST = "l0"
"""What the frontier is drawn over: a sparser one is cheaper."""


@dataclass(frozen=True)
class Candidate:
    """An artefact that may be taken."""

    number: int
    """Of its trial: of two equally good ones the earlier is taken."""
    artefact: str
    values: Mapping[str, Any]
    """Its configuration and its metrics, by name."""

    def number_of(self, name: str) -> float | None:
        """A metric or parameter, if it has a finite one."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if isfinite(value) else None


def candidates(trials: Iterable[TrialState]) -> list[Candidate]:
    """The artefacts of the trials that finished, in the order of their numbers."""
    found = [
        Candidate(trial.number, trial.artefact, {**trial.config, **trial.metrics})
        for trial in trials
        if trial.status == "finished" and trial.artefact is not None
    ]
    return sorted(found, key=lambda candidate: candidate.number)


def select(
    wanted: NeedSelect, found: Sequence[Candidate], other: SweepSpec
) -> tuple[Candidate, ...]:
    """Choose; the best first where there is a better and a worse.

    Args:
        wanted: which ones, as the sweep file says it.
        found: what the other sweep finished.
        other: the other sweep, which says which way its metrics are better.

    Raises:
        ValueError: `where` or `best` cannot be used; a sweep was checked for that at submit.
    """
    condition = parse_where(wanted.where)
    eligible = [candidate for candidate in found if condition.holds(candidate.values)]
    if wanted.best is not None:
        return tuple(_ranked(eligible, wanted.best, direction_of(other.kind, wanted.best))[:1])
    if wanted.top is not None:
        return tuple(_ranked(eligible, other.metric, other.direction)[: wanted.top])
    if wanted.pareto:
        return _frontier(eligible, other)
    return tuple(eligible)


def all_metrics(kind: JobKind) -> list[Metric]:
    """Those of every report, and those measured at the end."""
    return [*kind.metrics, *kind.final_metrics]


def direction_of(kind: JobKind, name: str) -> Literal["min", "max"]:
    """Which way a metric is better. Raises ValueError for one that has no better way."""
    for metric in all_metrics(kind):
        if metric.name == name and metric.direction is not None:
            return metric.direction
    known = ", ".join(m.name for m in all_metrics(kind) if m.direction is not None)
    raise ValueError(f"best={name!r} cannot be ranked in {kind.name}; use one of {known}")


def _ranked(
    eligible: Sequence[Candidate], metric: str, direction: Literal["min", "max"]
) -> list[Candidate]:
    sign = 1 if direction == "min" else -1
    known = [(v, c) for c in eligible if (v := c.number_of(metric)) is not None]
    return [c for _, c in sorted(known, key=lambda pair: (sign * pair[0], pair[1].number))]


def _frontier(eligible: Sequence[Candidate], other: SweepSpec) -> tuple[Candidate, ...]:
    by_number = {candidate.number: candidate for candidate in eligible}
    points = {
        number: Point(cost, value)
        for number, candidate in by_number.items()
        if (cost := candidate.number_of(COST)) is not None
        and (value := candidate.number_of(other.metric)) is not None
    }
    return tuple(by_number[number] for number in pareto(points, other.direction))
