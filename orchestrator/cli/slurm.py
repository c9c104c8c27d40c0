"""`saeq slurm`: workers as SLURM jobs: up, keep, status, down."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import slurm_options as given
from orchestrator.cli import with_examples
from orchestrator.cli.errors import DONE, INTERRUPTED, SWEEP_FAILED, RequestError
from orchestrator.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator.nodes.stages import Stage
    from orchestrator.slurm.folder import SlurmFolder, UpRecord
    from orchestrator.slurm.keeping import Keeping
    from orchestrator.slurm.options import WorkerOptions
    from orchestrator.slurm.status import StatusView
    from orchestrator.slurm.watching import Outcome
    from orchestrator.store import Store

HELP = """Workers as SLURM jobs: each serves the queue of one store, on nodes that SLURM gives it.

\b
    saeq submit sweep.yaml
    saeq slurm up --jobs 4 --gpus 2 --time 04:00:00 --partition gpu
    saeq slurm status            why is nothing happening?
    saeq slurm down              checkpoint, give back, end

The store has to be seen by all nodes: a folder of the shared file system, or s3://...
"""

slurm = typer.Typer(help=HELP, rich_markup_mode=None, no_args_is_help=True, add_completion=False)


def up(
    store: StoreOption = None,
    jobs: given.JobsOption = None,
    nodes: given.NodesOption = None,
    gpus: given.GpusOption = None,
    cpus: given.CpusOption = None,
    memory: given.MemoryOption = None,
    time_limit: given.TimeOption = None,
    partition: given.PartitionOption = None,
    account: given.AccountOption = None,
    qos: given.QosOption = None,
    constraint: given.ConstraintOption = None,
    exclude: given.ExcludeOption = None,
    array_throttle: given.ThrottleOption = None,
    elastic: given.ElasticOption = None,
    setup: given.SetupOption = None,
    python: given.PythonOption = None,
    signal: given.SignalOption = None,
    requeue: given.RequeueOption = None,
    idle: given.IdleOption = None,
    folder: given.FolderOption = None,
    env: given.EnvOption = None,
    sbatch: given.SbatchOption = None,
    extra: given.ExtraArgument = None,
    profile: given.ProfileOption = None,
    name: given.NameOption = "workers",
    within: given.WithinOption = None,
    every: given.EveryOption = None,
    dry_run: given.DryRunOption = False,
    detach: given.DetachOption = False,
) -> int:
    """Submit worker jobs and watch them start: a line a stage, and what to do where one hangs.

    Returns once every job works; Ctrl-C leaves them running. A start that misses a deadline is
    cancelled, tried on another node, and held against the first; three put it into quarantine.

        saeq slurm up --jobs 4 --gpus 2 --time 04:00:00 --partition gpu
        saeq slurm up --elastic 0:8 --gpus 1 --time 4h --detach
        saeq slurm up --jobs 2 --setup ~/env.sh --dry-run -- --reservation=course
    """
    asked: dict[str, Any] = {
        "jobs": jobs, "nodes": nodes, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time_limit, "partition": partition, "account": account, "qos": qos,
        "constraint": constraint, "exclude": exclude, "array_throttle": array_throttle,
        "elastic": elastic, "setup": setup, "python": python, "signal": signal,
        "requeue": requeue, "idle": idle, "folder": folder,
        "environment": _variables(env), "sbatch": [*(sbatch or []), *(extra or [])] or None,
    }  # fmt: skip
    from orchestrator.slurm.profile import load_options
    from orchestrator.store import Store

    said = {key: value for key, value in asked.items() if value is not None}
    options, opened = load_options(said, profile), Store.open(store)
    watch = _Watch(within, every)
    if dry_run:
        _show_what_would_be(name, options, opened)
        return DONE
    return _go_up(name, options, opened, watch, detach=detach)


def keep(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of an `up`.")],
    folder: given.FolderOption = None,
    within: given.WithinOption = None,
    every: given.EveryOption = None,
    detach: given.DetachOption = False,
    in_background: Annotated[bool, typer.Option("--in-background", hidden=True)] = False,
) -> int:
    """Keep watch over jobs that were submitted before, until none is left.

    Cancels a start that hangs, tries it on another node, and with --elastic brings jobs for work.
    Jobs need no keeper to work, only to be helped when they do not start.

        saeq slurm keep workers
        saeq slurm keep workers --detach     after the login node was restarted
    """
    (found,), watch = _folders([name], folder), _Watch(within, every)
    record = found.record()
    if record is None:
        raise RequestError(f"{found.record_file} cannot be read; `saeq slurm down {name}` ends it")
    if detach:
        return _detach(found, watch)
    return _keep(found, record, watch, until_started=False, is_detached=in_background)


def status(
    names: given.NamesArgument = None,
    folder: given.FolderOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
) -> int:
    """Why is nothing happening? Every job, how far it came, why not further, what to do.

    saeq slurm status
    saeq slurm status workers --watch
    saeq slurm status --json | jq '.ups[].jobs[] | {job, doing, why}'
    """
    from rich.console import Console

    from orchestrator.cli.printing import print_table
    from orchestrator.slurm.next_step import next_step
    from orchestrator.slurm.status import look

    while True:
        view = look(_folders(names, folder, recent=True), strays=not names)
        if as_json:
            text = json.dumps(view.to_json(next_step(view)), indent=1, allow_nan=False)
            sys.stdout.write(text + "\n")
            return DONE
        if watch:
            Console().clear()
        print_table(partial(_page, view))
        if not watch:
            return DONE
        time.sleep(_Watch.STATUS_EVERY_S)


def _page(view: StatusView, width: int | None, ascii_only: bool) -> list[Text]:
    from orchestrator.slurm.status_page import status_page

    return status_page(view, width, ascii_only=ascii_only)


def down(
    names: given.NamesArgument = None,
    folder: given.FolderOption = None,
    now: Annotated[
        bool, typer.Option("--now", help="Cancel at once; work since the last checkpoint is lost.")
    ] = False,
) -> int:
    """End worker jobs: trials are checkpointed and given back, then nothing is left in squeue.

    What is in the store stays as it is: another `up` goes on where these left off.

        saeq slurm down
        saeq slurm down workers --now
    """
    from orchestrator.slurm.going_down import DownRequest, bring_down

    found = _folders(names, folder)
    left = bring_down(DownRequest(found, strays=not names, at_once=now), _tell)
    if left:
        shown = ", ".join(f"{job.id} ({job.state.lower()}: {job.reason})" for job in left)
        typer.echo(f"saeq: SLURM does not let go of {shown}; ask its administrators", err=True)
        return SWEEP_FAILED
    typer.echo("nothing of it is left in squeue; `saeq slurm up` goes on where it was")
    return DONE


class _Watch:
    """How to keep watch, as it was asked for."""

    STATUS_EVERY_S = 5.0

    def __init__(self, within: list[str] | None, every: str | None) -> None:
        from orchestrator.slurm.going_up import parse_within
        from orchestrator.spec.units import BadQuantity, parse_seconds

        self.within_s: dict[Stage, float | None] = parse_within(within or [])
        self.words = [f"--within={text}" for text in within or []]
        try:
            self.every_s = None if every is None else parse_seconds(every)
        except BadQuantity as error:
            raise RequestError(f"--every {error}") from error
        self.words += [] if every is None else [f"--every={every}"]


def _go_up(name: str, options: WorkerOptions, store: Store, watch: _Watch, *, detach: bool) -> int:
    from orchestrator.slurm.going_up import begin, rules_of, take_back
    from orchestrator.slurm.keeping import Keeping

    folder, record = begin(name, options, store)
    try:
        if options.elastic is None:
            rules = rules_of(record, watch.within_s)
            Keeping(folder, record, store, rules, _tell).submit(options.jobs)
    finally:
        if options.elastic is None:
            take_back(folder)  # unless something was submitted
    typer.echo(f"{_clock()} files of these jobs: {folder.path}")
    if detach:
        return _detach(folder, watch)
    return _keep(folder, folder.record() or record, watch, until_started=True)


def _detach(folder: SlurmFolder, watch: _Watch) -> int:
    from orchestrator.slurm.going_up import start_keeper
    from orchestrator.slurm.keeper_post import AlreadyKept, read_beat

    there = read_beat(folder)
    if there is not None:
        raise AlreadyKept(folder.name, there.pid, there.host)
    pid = start_keeper(folder, watch.words)
    typer.echo(f"process {pid} keeps watch; it says what it does in {folder.keeper_log}")
    typer.echo(f"`saeq slurm status {folder.name}` looks, `saeq slurm down {folder.name}` ends")
    return DONE


def _keep(
    folder: SlurmFolder,
    record: UpRecord,
    watch: _Watch,
    *,
    until_started: bool,
    is_detached: bool = False,
) -> int:
    from orchestrator.slurm.going_up import rules_of
    from orchestrator.slurm.keeper_post import KeeperPost
    from orchestrator.slurm.keeping import Keeping
    from orchestrator.slurm.watching import keep_watch
    from orchestrator.store import Store

    rules = rules_of(record, watch.within_s)
    keeping = Keeping(folder, record, Store.open(record.store), rules, _tell)
    try:
        with KeeperPost(folder, is_detached=is_detached) as post:
            outcome = keep_watch(
                keeping,
                post,
                until_started=until_started,
                is_elastic=rules.elastic is not None,
                every_s=watch.every_s,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"no longer watching; the jobs go on. `saeq slurm status {folder.name}` looks, `saeq "
            f"slurm keep {folder.name} --detach` watches, `saeq slurm down {folder.name}` ends them"
        )
        return INTERRUPTED
    return _say_how_it_is(outcome, keeping)


def _say_how_it_is(outcome: Outcome, keeping: Keeping) -> int:
    from orchestrator.slurm.reasons import explain

    name = keeping.folder.name
    if outcome == "started":
        work = "and work" if keeping.free_trials or _num_slots(keeping) else "and wait for work"
        typer.echo(f"{_clock()} all jobs are up {work}")
        typer.echo(
            f"`saeq watch` shows the sweeps, `saeq slurm status {name}` the jobs; nobody keeps "
            f"watch from here on: `saeq slurm keep {name} --detach` does"
        )
        return DONE
    if outcome == "hopeless":
        worker = keeping.hopeless[0]
        reason = explain(worker.reason)
        typer.echo(
            f"saeq: job {worker.key} will never start: {reason.words}\n{reason.way_out}; "
            f"`saeq slurm down {name}` removes it",
            err=True,
        )
        return SWEEP_FAILED
    if outcome == "given up":
        return SWEEP_FAILED  # it has been told
    typer.echo(f"{_clock()} {'went down' if outcome == 'down' else 'no job is left'}")
    return DONE


def _num_slots(keeping: Keeping) -> int:
    return sum(worker.itself.slots for worker in keeping.workers if worker.itself is not None)


def _show_what_would_be(name: str, options: WorkerOptions, store: Store) -> None:
    """What `up` would do, and what SLURM says to it, where there is one."""
    from orchestrator.slurm.folder import SlurmFolder, default_place
    from orchestrator.slurm.script import sbatch_text
    from orchestrator.slurm.submitting import estimated, hosts_to_avoid

    place = (options.folder or default_place()).expanduser().absolute()
    folder = SlurmFolder(place / name)
    num_jobs = 1 if options.elastic is not None else options.jobs
    text = sbatch_text(options, folder, store.url, jobs=num_jobs, exclude=hosts_to_avoid(store))
    typer.echo(text)
    typer.echo(f"# sbatch --parsable {shlex.quote(str(folder.script))}")
    said = estimated(text)
    if said:
        typer.echo(f"# SLURM says to it: {said}")


def _folders(
    names: list[str] | None, place: str | None, *, recent: bool = False
) -> list[SlurmFolder]:
    """The ones named, else all; raises RequestError for a name that is none."""
    from orchestrator.slurm.folder import all_folders, default_place
    from orchestrator.slurm.profile import folder_in_profile
    from orchestrator.slurm.status import is_recent

    at = Path(place) if place is not None else folder_in_profile()
    found = {folder.name: folder for folder in all_folders(at)}
    for name in names or []:
        if name not in found:
            shown = ", ".join(found) or "none"
            raise RequestError(
                f"there are no jobs named {name!r} in {at or default_place()}; there are: {shown}"
            )
    if names:
        return [found[name] for name in dict.fromkeys(names)]
    return [folder for folder in found.values() if not recent or is_recent(folder)]


def _variables(texts: list[str] | None) -> dict[str, str] | None:
    if not texts:
        return None
    pairs = [text.partition("=") for text in texts]
    for text, (_, equals, _) in zip(texts, pairs, strict=True):
        if not equals:
            raise RequestError(f"--env {text!r} must be NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _tell(job: str, what: str, tail: str) -> None:
    typer.echo(f"{_clock()} {f'job {job}: ' if job else ''}{what}")
    for line in tail.splitlines():
        typer.echo(f"    {line}")
    sys.stdout.flush()


def _add(name: str, function: Callable[..., Any]) -> None:
    slurm.command(name, help=with_examples(function))(function)


for _name, _function in (("up", up), ("keep", keep), ("status", status), ("down", down)):
    _add(_name, _function)
