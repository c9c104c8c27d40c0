"""What sweeps cost, for programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from orchestrator.money.budget import BudgetUse
from orchestrator.money.cost import Amount, CostReport, TrialCost
from orchestrator.view.cost_page import SweepCost

AMOUNTS = (
    "spent",
    "lost_to_preemption",
    "lost_to_failures",
    "saved_by_stopping",
    "saved_by_packing",
)


def costs_json(sweeps: Sequence[SweepCost], total: CostReport) -> dict[str, Any]:
    """As documented for `saeq cost --json`."""
    return {"sweeps": [_sweep_json(one) for one in sweeps], "total": _report_json(total)}


def sweep_cost_json(sweep: SweepCost) -> dict[str, Any]:
    """As documented for `saeq cost ID --json`."""
    return {**_sweep_json(sweep), "trials": [_trial_json(t) for t in sweep.report.trials]}


def _sweep_json(sweep: SweepCost) -> dict[str, Any]:
    return {
        "sweep": sweep.sweep,
        "state": sweep.status,
        **_report_json(sweep.report),
        "budget": _budget_json(sweep.budget),
    }


def _report_json(report: CostReport) -> dict[str, Any]:
    priced = report.has_price
    machines, rest, each = report.machines, report.unattributed, report.per_finished
    return {
        "trials_begun": len(report.trials),
        "finished": report.num_finished,
        **{name: _amount_json(getattr(report, name), priced) for name in AMOUNTS},
        "one_run_each": _amount_json(report.one_run_each, priced),
        "per_finished": None if each is None else _amount_json(each, not report.unpriced_seconds),
        "by_state": {name: _amount_json(a, priced) for name, a in report.by_state.items()},
        "machines": {
            "wall_seconds": round(machines.wall_seconds, 3),
            "seconds": round(machines.device_seconds, 3),
            "usd": round(machines.usd, 6) if machines.usd else None,
        },
        "unattributed": None if rest is None else _amount_json(rest, bool(machines.usd)),
        "unpriced_seconds": round(report.unpriced_seconds, 3),
        "price_sources": list(report.price_sources),
        "is_estimate": report.is_estimate,
    }


def _trial_json(trial: TrialCost) -> dict[str, Any]:
    priced = trial.spent.seconds > trial.unpriced_seconds
    return {
        "trial": trial.trial,
        "state": trial.state,
        "tokens": trial.tokens,
        "total_tokens": trial.total_tokens,
        **{name: _amount_json(getattr(trial, name), priced) for name in AMOUNTS},
        "unpriced_seconds": round(trial.unpriced_seconds, 3),
        "price_sources": list(trial.price_sources),
        "is_estimate": trial.is_estimate,
    }


def _amount_json(amount: Amount, priced: bool) -> dict[str, float | None]:
    return {
        "seconds": round(amount.seconds, 3),
        "usd": round(amount.usd, 6) if priced else None,
    }


def _budget_json(budget: BudgetUse) -> dict[str, float | None] | None:
    if budget.share is None:
        return None
    return {
        "usd": round(budget.usd, 6),
        "usd_limit": budget.usd_limit,
        "hours": round(budget.hours, 6),
        "hours_limit": budget.hours_limit,
    }


def costs_csv(sweeps: Sequence[SweepCost]) -> str:
    """One line a sweep; seconds and dollars, dollars empty where no price is known."""
    rows = [[one.sweep, one.status, *_amount_cells(one.report)] for one in sweeps]
    return _csv(["sweep", "state", *_amount_titles()], rows)


def trial_costs_csv(sweep: SweepCost) -> str:
    """One line a trial; seconds and dollars, dollars empty where no price is known."""
    rows = [
        [t.trial, t.state, t.tokens, t.total_tokens, *_amount_cells(t)] for t in sweep.report.trials
    ]
    return _csv(["trial", "state", "tokens", "total_tokens", *_amount_titles()], rows)


def _amount_titles() -> list[str]:
    titles = [f"{name}_{unit}" for name in AMOUNTS for unit in ("seconds", "usd")]
    return [*titles, "unpriced_seconds", "is_estimate"]


def _amount_cells(row: TrialCost | CostReport) -> list[Any]:
    priced = row.spent.seconds > row.unpriced_seconds
    cells: list[Any] = []
    for name in AMOUNTS:
        amount: Amount = getattr(row, name)
        cells += [round(amount.seconds, 3), round(amount.usd, 6) if priced else ""]
    return [*cells, round(row.unpriced_seconds, 3), str(row.is_estimate).lower()]


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()
