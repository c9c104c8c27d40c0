"""`saeq run` and `saeq submit`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import DONE, INTERRUPTED, SWEEP_FAILED
from orchestrator.cli.options import StoreOption

if TYPE_CHECKING:
    from orchestrator.queue import QueuedSweep
    from orchestrator.serving.supervisor import Outcome
    from orchestrator.spec.sweep import SweepSpec
    from orchestrator.store import Store

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The sweep file (YAML).", show_default=False)
]

AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Also if its trials fit no machine that is there now.")
]


def submit(
    file: FileArgument,
    store: StoreOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print nothing but the sweep's id.")
    ] = False,
    anyway: AnywayOption = False,
) -> None:
    """Put a sweep into the store's queue; prints its id as the last line.

    The same file submitted twice is the same sweep. A changed file under the same name gets the
    next free id: name-2, name-3, ... A sweep whose trials fit no machine of those who serve the
    store now, nor any that their autoscalers would bring, is refused.

        saeq submit examples/demo.yaml
        saeq submit examples/demo.yaml --anyway
    """
    from orchestrator.planning.devices import GPUS, this_machine
    from orchestrator.planning.plan import refuse_what_fits_nowhere
    from orchestrator.spec.sweep import load_sweep

    spec = load_sweep(file)
    note = ""
    if not anyway:
        refuse_what_fits_nowhere(spec, [this_machine(spec.device), *GPUS.values()])
        note = _refuse_what_nobody_serves(spec, store)
    queued, is_new, _ = _submit(spec, file, store)
    if not as_json:
        if note:
            typer.echo(note)
        typer.echo(f"submitted as {queued.id}" if is_new else f"{queued.id} was submitted before")
    typer.echo(queued.id)


def run(
    file: FileArgument,
    store: StoreOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Progress on stderr; stdout is the sweep's id alone."),
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of the live view.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="A running Ray cluster. Else $RAY_ADDRESS, else a local Ray is started.",
            show_default=False,
        ),
    ] = None,
    anyway: AnywayOption = False,
) -> int:
    """Submit a sweep and work it off here, with a live view.

    Safe to interrupt: Ctrl-C checkpoints and stops within seconds, and the same command goes on
    where it was. A sweep that is over is not run again; its results are shown.

        saeq run examples/demo.yaml
        saeq run examples/demo.yaml --store /shared/saeq-store
    """
    from orchestrator.log.sweep_log import SweepLog
    from orchestrator.log.sweep_status import is_over, sweep_status
    from orchestrator.planning.fits_here import refuse_what_cannot_run_here
    from orchestrator.serving.interrupts import stop_signals_interrupt
    from orchestrator.serving.local_ray import cluster_address, ray_source
    from orchestrator.serving.notice_watch import watched_notices
    from orchestrator.serving.supervisor import Outcome, Supervisor
    from orchestrator.spec.sweep import load_sweep
    from orchestrator.view.live import live_view

    spec = load_sweep(file)
    cluster = cluster_address(ray_address)
    if not anyway:
        if cluster:
            _refuse_what_the_cluster_lacks(spec, cluster)
        else:
            refuse_what_cannot_run_here(spec, file)
    queued, is_new, opened = _submit(spec, file, store)
    state = SweepLog(opened, queued.id).refresh()
    if is_over(sweep_status(queued.spec.trials, state)):
        return _say_result(opened, queued, Outcome("over"), as_json, "is over already")
    with live_view(opened, queued, plain=plain, to_stderr=as_json) as view:
        view.say(f"sweep {queued.id}" if is_new else f"sweep {queued.id}: going on where it was")
        ray = ray_source(ray_address)
        try:
            with stop_signals_interrupt(), closing(ray), watched_notices(None, view.say) as heeded:
                outcome = Supervisor(opened, queued, ray, view.update, view.say, heeded).run()
        except KeyboardInterrupt:
            outcome = Outcome("interrupted")
    return _say_result(opened, queued, outcome, as_json, "is over")


def _refuse_what_nobody_serves(spec: SweepSpec, store: str | None) -> str:
    """Against what live serves take: a note for the user. Raises DoesNotFit."""
    from orchestrator.planning.fits_somewhere import (
        NOBODY,
        refuse_what_nobody_takes,
        served_shapes,
    )
    from orchestrator.store import Store

    shapes = served_shapes(Store.open(store))
    if shapes is None:
        return NOBODY
    return refuse_what_nobody_takes(spec, shapes) if shapes else ""


def _refuse_what_the_cluster_lacks(spec: SweepSpec, address: str) -> None:
    """Against the node types of a cluster that can be asked. Raises DoesNotFit."""
    from orchestrator.planning.fits_somewhere import refuse_what_nobody_takes
    from orchestrator.serving.cluster_look import shape_of_cluster

    shape = shape_of_cluster(address)
    if shape is not None and not shape.is_empty:
        refuse_what_nobody_takes(spec, [shape])


def _submit(spec: SweepSpec, file: Path, store: str | None) -> tuple[QueuedSweep, bool, Store]:
    from orchestrator.needs.at_submit import refuse_needs_that_cannot_be_met
    from orchestrator.queue import Queue
    from orchestrator.store import Store

    opened = Store.open(store)
    refuse_needs_that_cannot_be_met(spec, opened, file)
    queued, is_new = Queue(opened).submit(spec, file.read_text(encoding="utf-8"))
    return queued, is_new, opened


def _say_result(
    store: Store, queued: QueuedSweep, outcome: Outcome, as_json: bool, how: str
) -> int:
    from orchestrator.log.sweep_log import SweepLog
    from orchestrator.log.sweep_status import sweep_status
    from orchestrator.results.page import print_results

    code = DONE
    if outcome.how == "interrupted":
        typer.echo(
            f"sweep {queued.id} was interrupted; what is done is kept, and the same command "
            "goes on with it",
            err=True,
        )
        code = INTERRUPTED
    elif outcome.how in ("unusable", "parked"):
        typer.echo(f"saeq: sweep {queued.id} stopped: {outcome.reason}", err=True)
        code = SWEEP_FAILED
    else:
        status = sweep_status(queued.spec.trials, SweepLog(store, queued.id).refresh())
        code = DONE if status == "finished" else SWEEP_FAILED
        if not as_json:
            typer.echo(f"sweep {queued.id} {how}: {status}")
            print_results(store, queued)
            _say_what_next(store, queued)
    if as_json:
        typer.echo(queued.id)
    return code


def _say_what_next(store: Store, queued: QueuedSweep) -> None:
    """Write the plot and the table beside the user, and name the three commands to try next."""
    import shlex

    from orchestrator.results.files import default_places, write_results
    from orchestrator.results.reports import write_reports
    from orchestrator.results.table import results_of
    from orchestrator.store import Store
    from orchestrator.view.facts import WatchedSweep

    watched = WatchedSweep.open(store, queued.id)
    results = results_of(watched.facts, watched.log.state)
    places = default_places(queued.id, None, None)
    reports = write_reports(store, queued, watched.log.state, places.png.parent)
    for path in [*write_results(results, places), *reports]:
        typer.echo(f"wrote {path}")
    best = next(iter(results.best_by_stratum().values()), None)
    show = f"{queued.id} {best.trial}" if best is not None else queued.id
    at = "" if Store.open().url == store.url else f" --store {shlex.quote(store.url)}"
    typer.echo("try next:")
    for command, what in (
        (f"saeq show {show}", "how one trial went"),
        (f"saeq artefacts --sweep {queued.id}", "what can be loaded, and from where"),
        (f"saeq results {queued.id} --json", "the same for a program"),
    ):
        typer.echo(f"  {command}{at}   # {what}")
