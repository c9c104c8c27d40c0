"""What the store holds: its sweeps and its artefacts, as rows for tables and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from rich.text import Text

from orchestrator.log.state import SweepState
from orchestrator.log.sweep_status import SweepStatus, is_over, sweep_status
from orchestrator.money.budget import WARN_FROM, budget_use
from orchestrator.money.node_price import rests_on_estimate
from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.facts import SweepFacts
from orchestrator.view.marks import status_text
from orchestrator.view.model import best_value, num_unseen, why_it_waits

# Sweeps


@dataclass(frozen=True)
class SweepRow:
    """One sweep in `saeq ls`."""

    sweep: str
    job: str
    state: SweepStatus
    num_ended: int
    num_trials: int
    counts: Mapping[str, int]
    metric: str
    best: float | None
    usd: float
    usd_is_estimate: bool
    """Whether a typical price stands in for one that nobody named."""
    seconds: float
    budget_share: float | None
    """How much of its budget is used; None where it has none."""
    age_s: float | None
    """Since it was submitted."""
    why: str
    """Why its waiting trials wait; empty when none does."""

    def to_json(self) -> dict[str, Any]:
        """As documented for `saeq ls --json`."""
        return {
            "sweep": self.sweep,
            "job": self.job,
            "state": self.state,
            "done": self.num_ended,
            "trials": self.num_trials,
            "counts": {name: count for name, count in self.counts.items() if count},
            "metric": self.metric,
            "best": self.best,
            "usd": round(self.usd, 6),
            "usd_is_estimate": self.usd_is_estimate,
            "seconds": round(self.seconds, 3),
            "budget_share": None if self.budget_share is None else round(self.budget_share, 4),
            "age_seconds": None if self.age_s is None else round(self.age_s, 3),
            "why": self.why,
        }


def sweep_row(facts: SweepFacts, state: SweepState, now: float) -> SweepRow:
    """Where one sweep stands."""
    status = sweep_status(facts.num_trials, state)
    unseen = num_unseen(facts, state)
    trials = list(state.trials.values())
    counts = dict(state.counts)
    counts["queued"] = counts.get("queued", 0) + unseen
    return SweepRow(
        sweep=facts.id,
        job=facts.job,
        state=status,
        num_ended=sum(trial.ended for trial in trials),
        num_trials=len(trials) + unseen,
        counts=counts,
        metric=facts.metric,
        best=best_value(facts, state),
        usd=sum(trial.usd for trial in trials),
        usd_is_estimate=any(rests_on_estimate(trial) for trial in trials),
        seconds=sum(trial.busy_seconds for trial in trials),
        budget_share=budget_use(state, facts.budget_usd, facts.budget_hours, now).share,
        age_s=None if facts.submitted_at is None else max(now - facts.submitted_at, 0.0),
        why="" if is_over(status) else why_it_waits(facts, state),
    )


def sweep_table(
    rows: Sequence[SweepRow], width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """`saeq ls` as lines."""
    if not rows:
        return [Text("no sweeps in this store; submit one with `saeq run FILE`")]
    columns = [
        Column("sweep", [Text(cells.one_line(row.sweep), style="bold") for row in rows]),
        Column("job", [cells.one_line(row.job) for row in rows], 6),
        Column("status", [status_text(row.state) for row in rows]),
        Column("done", [f"{row.num_ended}/{row.num_trials}" for row in rows], right=True),
        Column("best", [_best(row) for row in rows], 2),
        Column("time", [cells.countdown(row.seconds or None) for row in rows], 5, right=True),
        Column("spent", [_spent(row) for row in rows], 3, right=True),
        Column("age", [cells.duration(row.age_s) for row in rows], 4, right=True),
        Column("why it waits", [row.why for row in rows], 1, shrinks_to=16),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)


def _spent(row: SweepRow) -> Text:
    """Dollars, and the share of the budget once it comes near its end."""
    spent = Text(cells.usd(row.usd or None, is_estimate=row.usd_is_estimate))
    if row.budget_share is not None and row.budget_share >= WARN_FROM:
        style = "bold red" if row.budget_share >= 1 else "bold yellow"
        spent.append(f" {cells.percent(row.budget_share)} of budget", style=style)
    return spent


def _best(row: SweepRow) -> str:
    return "-" if row.best is None else f"{cells.one_line(row.metric)} {cells.number(row.best)}"


# Artefacts


@dataclass(frozen=True)
class ArtefactRow:
    """One complete artefact of the store."""

    id: str
    kind: str
    path: str
    sweep: str
    trial: str
    model: str
    hook: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    cost: Mapping[str, Any]
    created_at: float | None

    @classmethod
    def of(cls, record: Mapping[str, Any], path: str) -> ArtefactRow:
        """Read a record.json; what it lacks is empty."""
        config, setup = _mapping(record.get("config")), _mapping(record.get("setup"))
        return cls(
            id=str(record.get("id", "")),
            kind=str(record.get("kind", "")),
            path=path,
            sweep=str(record.get("sweep", "")),
            trial=str(record.get("trial", "")),
            model=_model(setup.get("model")),
            hook=_hook(config, setup),
            config=config,
            metrics=_mapping(record.get("metrics")),
            cost=_mapping(record.get("cost")),
            created_at=cells.known(record.get("created_at")),
        )

    def to_json(self) -> dict[str, Any]:
        """As documented for `saeq artefacts --json`."""
        return {
            "id": self.id,
            "kind": self.kind,
            "path": self.path,
            "sweep": self.sweep,
            "trial": self.trial,
            "metrics": {name: cells.known(value) for name, value in self.metrics.items()},
            "model": self.model,
            "hook": self.hook,
            "config": dict(self.config),
            "cost": dict(self.cost),
            "created_at": self.created_at,
        }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _model(model: Any) -> str:
    if isinstance(model, Mapping):
        return str(model.get("name") or model.get("builtin") or "")
    return str(model or "")


def _hook(config: Mapping[str, Any], setup: Mapping[str, Any]) -> str:
    hooks = setup.get("hooks")
    only = hooks[0] if isinstance(hooks, list | tuple) and len(hooks) == 1 else hooks
    hook = config.get("hook") or only
    return hook if isinstance(hook, str) else ""


class UnknownSortKey(ValueError):
    """The artefacts have no such column or metric."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        super().__init__(key, known)
        self.key, self.known = key, known

    def __str__(self) -> str:
        near = get_close_matches(self.key, self.known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"--sort {self.key!r} is no column; columns: {', '.join(self.known)}.{hint}"


def select_artefacts(
    rows: Iterable[ArtefactRow],
    *,
    kind: str | None = None,
    sweep: str | None = None,
    model: str | None = None,
    hook: str | None = None,
    sort: str | None = None,
) -> list[ArtefactRow]:
    """Filter and sort. `model` and `hook` may be a part of the name.

    Args:
        sort: `id`, `kind`, `sweep`, `trial`, `model`, `hook`, `created_at`, or a metric; `-` in
            front turns the order round. Whoever lacks the metric comes last.

    Raises:
        UnknownSortKey: neither a column nor a metric of any artefact.
    """
    found = [
        row
        for row in rows
        if (kind is None or row.kind == kind)
        and (sweep is None or row.sweep == sweep)
        and (model is None or model.lower() in row.model.lower())
        and (hook is None or hook.lower() in row.hook.lower())
    ]
    return _sorted(found, sort) if sort else found


SORT_COLUMNS = ("id", "kind", "sweep", "trial", "model", "hook", "created_at")


def _sorted(rows: list[ArtefactRow], sort: str) -> list[ArtefactRow]:
    key, descending = sort.removeprefix("-"), sort.startswith("-")
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    if key in SORT_COLUMNS:
        return sorted(rows, key=lambda row: _column_order(row, key), reverse=descending)
    if rows and key not in metrics:
        raise UnknownSortKey(key, [*SORT_COLUMNS, *metrics])
    known = [row for row in rows if cells.known(row.metrics.get(key)) is not None]
    others = [row for row in rows if cells.known(row.metrics.get(key)) is None]
    known.sort(key=lambda row: float(row.metrics[key]), reverse=descending)
    return known + others


def _column_order(row: ArtefactRow, column: str) -> tuple[float, str]:
    value = getattr(row, column)
    return (value, "") if isinstance(value, float) else (0.0, str(value or ""))


def artefact_table(
    rows: Sequence[ArtefactRow], width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """`saeq artefacts` as lines."""
    if not rows:
        return [
            Text("no artefacts here; a trial that finishes leaves one (`saeq ls` shows sweeps)")
        ]
    columns = [
        Column("id", [Text(cells.one_line(row.id), style="bold") for row in rows]),
        Column("kind", [cells.one_line(row.kind) for row in rows], 4),
        Column("sweep", [cells.one_line(row.sweep) for row in rows], 8),
        Column("trial", [cells.one_line(row.trial) for row in rows], 9),
        Column("model", [cells.one_line(row.model) for row in rows], 6, shrinks_to=14),
        Column("hook", [cells.one_line(row.hook) for row in rows], 5, shrinks_to=14),
        Column("fvu", [cells.number(row.metrics.get("fvu")) for row in rows], 1, right=True),
        Column("L0", [cells.number(row.metrics.get("l0"), 1) for row in rows], 2, right=True),
        Column("path", [row.path for row in rows], 3),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)
