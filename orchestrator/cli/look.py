"""Commands that only look: watch, ls, show, results, artefacts."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import DONE, SWEEP_FAILED
from orchestrator.cli.logs import TrialArgument, split_sweep_and_trial
from orchestrator.cli.options import JsonOption, StoreOption, SweepArgument
from orchestrator.cli.printing import print_json, print_lines, print_table

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator.store import Store
    from orchestrator.view.facts import WatchedSweep

SweepsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID", help="Sweeps by id; else all that are not over.", show_default=False
    ),
]
POLL_S = 0.5


def watch(
    sweeps: SweepsArgument = None,
    store: StoreOption = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and leave.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a sweep, then leave; see `ls --json`.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of the live view.")
    ] = False,
) -> int:
    """The live dashboard, from any machine that reaches the store; ends with the sweeps.

    Reads the log only: it may be started, stopped and doubled at will.

        saeq watch                    all sweeps that are not over
        saeq watch gpt2-l8-topk       one sweep
        saeq watch --once             one frame, for a mail or a cron job
        saeq watch | tee watch.txt    plain lines, one an event
    """
    from orchestrator.log.sweep_status import is_over
    from orchestrator.view.live import LiveView

    watched = _watched(_open(store), sweeps)
    if as_json:
        print_json([_sweep_row(each).to_json() for each in watched])
    elif once:
        _print_frame(watched)
    elif not watched:
        print_lines(_text_lines("no sweeps in this store; submit one with `saeq run FILE`"))
    else:
        with LiveView(watched, plain=True if plain else None) as view:
            while not all(is_over(_status(each)) for each in watched):
                time.sleep(POLL_S)
                view.update()
        return SWEEP_FAILED if any(_status(e) != "finished" for e in watched) else DONE
    return DONE


def ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All sweeps of the store: how far, how good, what they cost, why they wait.

    saeq ls
    saeq ls --json | jq '.[] | select(.state == "interrupted").sweep'
    """
    from orchestrator.view.listing import sweep_table
    from orchestrator.view.sweep_rows import sweep_rows

    rows = sweep_rows(_open(store), time.time())
    if as_json:
        print_json([row.to_json() for row in rows])
    else:
        print_table(lambda width, ascii_only: sweep_table(rows, width, ascii_only=ascii_only))


def show(
    sweep: SweepArgument,
    trial: TrialArgument = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """One sweep: its spec in short and who worked on it. Or one trial: all that happened to it.

    saeq show gpt2-l8-topk
    saeq show gpt2-l8-topk t0007       the same as: saeq show gpt2-l8-topk/7
    """
    from orchestrator.view.facts import WatchedSweep
    from orchestrator.view.show import find_trial, sweep_json, sweep_page

    sweep, trial = split_sweep_and_trial(sweep, trial)
    opened = _open(store)
    watched = WatchedSweep.open(opened, sweep)
    facts, state = watched.facts, watched.log.state
    if trial is not None:
        _show_trial(opened, watched, find_trial(sweep, trial, state).id, as_json)
    elif as_json:
        print_json(sweep_json(facts, state))
    else:
        print_table(lambda width, asc: sweep_page(facts, state, width, ascii_only=asc))


def results(
    sweep: SweepArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the table here; the plot beside it."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Write the plot here (a PNG)."),
    ] = None,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Only print; write nothing.")
    ] = False,
) -> None:
    """Table per stratum, the frontier, and the best SAE of each; also of a sweep still running.

    Writes results.csv, frontier.png and frontier.html into ./ID-results/, unless told where.

        saeq results gpt2-l8-topk
        saeq results gpt2-l8-topk --csv table.csv
        saeq results gpt2-l8-topk --json | jq '.trials[] | select(.state == "finished")'
    """
    from orchestrator.queue import Queue
    from orchestrator.results.files import default_places, write_results
    from orchestrator.results.page import print_page
    from orchestrator.results.reports import write_reports
    from orchestrator.results.table import results_of
    from orchestrator.view.facts import WatchedSweep

    opened = _open(store)
    watched = WatchedSweep.open(opened, sweep)
    found = results_of(watched.facts, watched.log.state)
    wants_files = csv is not None or plot is not None or not (as_json or no_files)
    written = write_results(found, default_places(sweep, csv, plot)) if wants_files else []
    if wants_files and not as_json:
        folder = (csv or plot or Path(f"{sweep}-results") / "x").parent
        written += write_reports(opened, Queue(opened).get(sweep), watched.log.state, folder)
    if as_json:
        print_json(found.to_json())
        return
    print_page(found, opened)
    for path in written:
        typer.echo(f"wrote {path}")


def artefacts(
    store: StoreOption = None,
    as_json: JsonOption = False,
    kind: Annotated[str | None, typer.Option("--kind", help="Such as `sae`.")] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="A sweep's id.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Part of the model's name.")] = None,
    hook: Annotated[str | None, typer.Option("--hook", help="Part of the hook's name.")] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="A column or a metric; -fvu turns it round.")
    ] = None,
) -> None:
    """What the store holds: finished SAEs, embedding models, vectors, with their paths.

    saeq artefacts
    saeq artefacts --kind sae --hook layers.10 --sort fvu
    saeq artefacts --json | jq -r '.[0].path'
    """
    from orchestrator.trials.artefacts import artefact_records
    from orchestrator.view.listing import ArtefactRow, artefact_table, select_artefacts

    opened = _open(store)
    every = [ArtefactRow.of(record, path) for record, path in artefact_records(opened)]
    rows = select_artefacts(every, kind=kind, sweep=sweep, model=model, hook=hook, sort=sort)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    print_table(lambda width, asc: artefact_table(rows, width, ascii_only=asc))
    if rows and sys.stdout.isatty():
        kind_folder = opened.layout.artefact("KIND", "ID")
        typer.echo(f"files: {opened.local_path(kind_folder)}")


def _show_trial(store: Store, watched: WatchedSweep, trial: str, as_json: bool) -> None:
    from orchestrator.log.sweep_log import LogReader
    from orchestrator.view.show import trial_json, trial_page

    facts, found = watched.facts, watched.log.state.trials[trial]
    path = None
    if found.artefact is not None:
        path = store.local_path(store.layout.artefact(facts.artefact_kind, found.artefact))
    if as_json:
        checkpoints = store.backend.children(store.layout.checkpoints(facts.id, trial))
        print_json(trial_json(facts, found, path, checkpoints))
        return
    events = LogReader(store, facts.id).poll()
    print_table(lambda width, asc: trial_page(facts, found, events, path, width, ascii_only=asc))


def _open(store: str | None) -> Store:
    from orchestrator.store import Store

    return Store.open(store)


def _watched(store: Store, sweeps: list[str] | None) -> list[WatchedSweep]:
    """The sweeps named, else all that are not over, else the newest."""
    from orchestrator.log.sweep_status import is_over
    from orchestrator.view.facts import WatchedSweep

    if sweeps:
        return [WatchedSweep.open(store, sweep) for sweep in dict.fromkeys(sweeps)]
    every = WatchedSweep.open_all(store)
    return [each for each in every if not is_over(_status(each))] or every[-1:]


def _status(watched: WatchedSweep) -> Any:
    from orchestrator.log.sweep_status import sweep_status

    return sweep_status(watched.facts.num_trials, watched.log.state)


def _sweep_row(watched: WatchedSweep) -> Any:
    from orchestrator.view.listing import sweep_row

    return sweep_row(watched.facts, watched.log.state, time.time())


def _print_frame(watched: list[WatchedSweep]) -> None:
    from orchestrator.view.dashboard import frame_lines, view_model
    from orchestrator.view.nodes_rows import NodesSnapshot
    from orchestrator.view.nodes_table import panel_of

    now, states = time.time(), [(each.facts, each.log.state) for each in watched]
    snapshot = NodesSnapshot.read(watched[0].log.store) if watched else NodesSnapshot()
    model = view_model(states, now, panel_of(snapshot, states, now))
    print_table(lambda width, asc: frame_lines(model, width or 120, ascii_only=asc))


def _text_lines(text: str) -> list[Text]:
    from rich.text import Text

    return [Text(text)]
