"""What a sweep gave: one row a trial, for programs, spreadsheets and the pages beside this."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_status import SweepStatus, sweep_status
from orchestrator.money.node_price import rests_on_estimate
from orchestrator.results.frontier import Point, pareto
from orchestrator.view import cells
from orchestrator.view.facts import SweepFacts
from orchestrator.view.model import num_unseen
from orchestrator.view.pace import saved_share


@dataclass(frozen=True)
class ResultRow:
    """One trial and how it came out."""

    trial: str
    state: str
    config: Mapping[str, Any]
    tokens: int
    total_tokens: int
    metrics: Mapping[str, float | None]
    stopped: Mapping[str, Any] | None
    artefact: str | None
    seconds: float
    """Device time."""
    usd: float
    usd_is_estimate: bool
    """Whether a typical price stands in for one that nobody named."""
    reason: str
    stratum: str
    on_frontier: bool
    """Finished, and no other finished trial is both sparser and better."""

    def to_json(self) -> dict[str, Any]:
        """As documented for `saeq results --json`."""
        return {
            "trial": self.trial,
            "state": self.state,
            "config": dict(self.config),
            "tokens": self.tokens,
            "metrics": {name: cells.known(value) for name, value in self.metrics.items()},
            "stopped": dict(self.stopped) if self.stopped is not None else None,
            "artefact": self.artefact,
            "seconds": round(self.seconds, 3),
            "usd": round(self.usd, 6),
            "usd_is_estimate": self.usd_is_estimate,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Results:
    """All rows of a sweep, in the order of the trials' numbers."""

    facts: SweepFacts
    status: SweepStatus
    rows: tuple[ResultRow, ...]
    counts: Mapping[str, int]
    """Trials in each status; `queued` counts those not suggested yet too."""
    spent_tokens: int
    full_tokens: int | None
    """What the whole search would take without early stopping; None before the first trial."""
    saved: float | None
    """Share of the tokens of the trials begun that early stopping saved."""

    def to_json(self) -> dict[str, Any]:
        """As documented for `saeq results --json`."""
        return {
            "sweep": self.facts.id,
            "state": self.status,
            "trials": [row.to_json() for row in self.rows],
        }

    def by_stratum(self) -> dict[str, list[ResultRow]]:
        """Rows of each stratum, best first: finished ones by metric, then the others by tokens."""
        groups: dict[str, list[ResultRow]] = {}
        for row in self.rows:
            groups.setdefault(row.stratum, []).append(row)
        names = sorted(groups, key=_natural)
        return {name: sorted(groups[name], key=self._rank) for name in names}

    def best_by_stratum(self) -> dict[str, ResultRow]:
        """The best finished trial of each stratum that has one."""
        best = {name: rows[0] for name, rows in self.by_stratum().items()}
        return {name: row for name, row in best.items() if self._is_kept(row)}

    def value(self, row: ResultRow) -> float | None:
        """The metric that the sweep is judged by."""
        return cells.known(row.metrics.get(self.facts.metric))

    def _is_kept(self, row: ResultRow) -> bool:
        return row.state == "finished" and self.value(row) is not None

    def _rank(self, row: ResultRow) -> tuple[bool, float, float, str]:
        value = self.value(row)
        sign = 1 if self.facts.direction == "min" else -1
        badness = float("inf") if value is None else sign * value
        if row.state == "finished":
            return (False, 0.0, badness, row.trial)
        return (True, -float(row.tokens), badness, row.trial)


def results_of(facts: SweepFacts, state: SweepState) -> Results:
    """Collect what a sweep gave so far."""
    trials = state.by_number()
    frontier = set(frontier_members(facts, trials))
    counts = Counter(state.counts)
    counts["queued"] += num_unseen(facts, state)
    asked = [trial.total_tokens for trial in trials if trial.total_tokens > 0]
    num_full = max(facts.num_trials, len(trials))
    return Results(
        facts=facts,
        status=sweep_status(facts.num_trials, state),
        rows=tuple(_row(facts, trial, trial.id in frontier) for trial in trials),
        counts=counts,
        spent_tokens=sum(max(trial.tokens, 0) for trial in trials),
        full_tokens=round(sum(asked) / len(asked) * num_full) if asked else None,
        saved=saved_share(state),
    )


def frontier_members(facts: SweepFacts, trials: Iterable[TrialState]) -> list[str]:
    """Finished trials that no other of the same hook beats in L0 and metric at once.

    None where the job kind has no L0.
    """
    by_hook: dict[Any, dict[str, Point]] = {}
    if "l0" not in facts.metrics:
        return []
    for trial in trials:
        value = cells.known(trial.metrics.get(facts.metric))
        if trial.status != "finished" or value is None:
            continue
        l0 = cells.known(trial.metrics.get("l0"))
        point = Point(l0 if l0 is not None else 0.0, value)
        by_hook.setdefault(str(trial.config.get("hook")), {})[trial.id] = point
    return [trial for points in by_hook.values() for trial in pareto(points, facts.direction)]


def _row(facts: SweepFacts, trial: TrialState, on_frontier: bool) -> ResultRow:
    return ResultRow(
        trial=trial.id,
        state=trial.status,
        config=trial.config,
        tokens=trial.tokens,
        total_tokens=trial.total_tokens,
        metrics=trial.metrics,
        stopped=_stopped(trial),
        artefact=trial.artefact,
        seconds=trial.busy_seconds,
        usd=trial.usd,
        usd_is_estimate=rests_on_estimate(trial),
        reason=trial.reason,
        stratum=facts.stratum(trial.config, trial.metrics),
        on_frontier=on_frontier,
    )


def _stopped(trial: TrialState) -> dict[str, Any] | None:
    stop = trial.stop
    if stop is None or trial.status != "stopped":
        return None
    return {
        "rung": stop.rung,
        "value": cells.known(stop.value),
        "cutoff": cells.known(stop.cutoff),
        "against": stop.against,
        "on_course": stop.on_course,
        "rule": stop.rule,
        "reason": stop.reason,
    }


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Sort `k=8` before `k=16`."""
    words = name.replace("=", " ").replace("~", " ").replace(",", " ").split()
    return [(0, float(w), "") if _is_number(w) else (1, 0.0, w) for w in words]


def _is_number(word: str) -> bool:
    try:
        return float(word) == float(word)
    except ValueError:
        return False


FIXED_COLUMNS = ("trial", "state", "stratum", "on_frontier", "tokens", "total_tokens")
END_COLUMNS = ("seconds", "usd", "usd_is_estimate", "artefact", "reason")


def results_csv(results: Results) -> str:
    """One line a trial: `config.*` and `metrics.*` columns for whatever occurs."""
    configs = _names(row.config for row in results.rows)
    metrics = _names(row.metrics for row in results.rows)
    header = [
        *FIXED_COLUMNS,
        *(f"config.{name}" for name in configs),
        *(f"metrics.{name}" for name in metrics),
        *END_COLUMNS,
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in results.rows:
        writer.writerow(_csv_row(row, configs, metrics))
    return file.getvalue()


def _csv_row(row: ResultRow, configs: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    return [
        *(getattr(row, name) for name in FIXED_COLUMNS),
        *(_plain(row.config.get(name, "")) for name in configs),
        *(_or_empty(cells.known(row.metrics.get(name))) for name in metrics),
        *(_or_empty(getattr(row, name)) for name in END_COLUMNS),
    ]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else _or_empty(value)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
