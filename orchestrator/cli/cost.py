"""The command cost: what sweeps cost, what was lost, what was saved."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import JsonOption, StoreOption
from orchestrator.cli.printing import print_table

if TYPE_CHECKING:
    from orchestrator.store import Store
    from orchestrator.view.cost_page import SweepCost
    from orchestrator.view.facts import WatchedSweep

OptionalSweep = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="A sweep's id; else all of them.", show_default=False),
]
TO_STDOUT = Path("-")


def cost(
    sweep: OptionalSweep = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the table here; - for stdout."),
    ] = None,
) -> None:
    """What sweeps cost, what was lost, and what packing and early stopping saved.

    Device time as trials measured it, at the price noted when each began: the sweep's own
    price.usd_per_hour, the node's label saeq-usd-per-hour, its spot price, else a typical one (~).

        saeq cost                       a line a sweep, and the total
        saeq cost gpt2-l8-topk          a line a trial
        saeq cost --json | jq .total.spent.usd
        saeq cost gpt2-l8-topk --csv costs.csv
    """
    from orchestrator.store import Store
    from orchestrator.view.facts import WatchedSweep

    if as_json and csv == TO_STDOUT:
        raise RequestError("--json and --csv - both want stdout; give --csv a file")
    opened = Store.open(store)
    if sweep is None:
        _all_sweeps(opened, as_json, csv)
    else:
        _one_sweep(_sweep_cost(opened, WatchedSweep.open(opened, sweep), time.time()), as_json, csv)


def _all_sweeps(store: Store, as_json: bool, csv: Path | None) -> None:
    from orchestrator.money.cost import cost_of_all
    from orchestrator.view.cost_data import costs_csv, costs_json
    from orchestrator.view.cost_page import cost_table
    from orchestrator.view.facts import WatchedSweep

    now, watched = time.time(), WatchedSweep.open_all(store)
    sweeps = [_sweep_cost(store, each, now) for each in watched]
    states = [each.log.state for each in watched]
    total = cost_of_all(states, [each.report for each in sweeps], now)
    if csv is not None:
        _write_csv(costs_csv(sweeps), csv)
    if as_json:
        _print_json(costs_json(sweeps, total))
    elif csv != TO_STDOUT:
        print_table(lambda width, asc: cost_table(sweeps, total, width, ascii_only=asc))


def _one_sweep(sweep: SweepCost, as_json: bool, csv: Path | None) -> None:
    from orchestrator.view.cost_data import sweep_cost_json, trial_costs_csv
    from orchestrator.view.cost_page import trial_cost_table

    if csv is not None:
        _write_csv(trial_costs_csv(sweep), csv)
    if as_json:
        _print_json(sweep_cost_json(sweep))
    elif csv != TO_STDOUT:
        print_table(lambda width, asc: trial_cost_table(sweep, width, ascii_only=asc))


def _sweep_cost(store: Store, watched: WatchedSweep, now: float) -> SweepCost:
    from orchestrator.log.sweep_status import sweep_status
    from orchestrator.money.budget import budget_use
    from orchestrator.money.cost import cost_of, price_sources
    from orchestrator.providers.prices import recalled_history
    from orchestrator.view import cells
    from orchestrator.view.cost_page import SweepCost

    facts, state = watched.facts, watched.log.state
    found = {source: recalled_history(source, store) for source in price_sources(state) if source}
    histories = {source: history for source, history in found.items() if history is not None}
    return SweepCost(
        sweep=facts.id,
        status=sweep_status(facts.num_trials, state),
        report=cost_of(state, now, histories),
        budget=budget_use(state, facts.budget_usd, facts.budget_hours, now),
        parameters={
            trial.id: cells.parameters(trial.config, facts.searched)
            for trial in state.trials.values()
        },
    )


def _write_csv(text: str, path: Path) -> None:
    if path == TO_STDOUT:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise RequestError(f"--csv {path}: cannot be written ({error.strerror})") from error
    typer.echo(f"wrote {path}", err=True)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
