"""`saeq logs`: what was printed for a sweep or a trial, on whichever machine that was."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import StoreOption, SweepArgument

if TYPE_CHECKING:
    from orchestrator.store import Store
    from orchestrator.view.facts import WatchedSweep
    from orchestrator.view.output import OutputReader

POLL_S = 1.0
LAST_LINES_WITHIN_S = 5.0
"""How long after a trial's end its last lines may still be on their way."""

TrialArgument = Annotated[
    str | None,
    typer.Argument(metavar="TRIAL", help="A trial's id or number.", show_default=False),
]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on printing what is added, until the end.")
]
LinesOption = Annotated[
    int | None,
    typer.Option("--lines", "-n", min=0, help="Only the last so many lines.", show_default=False),
]
EpochOption = Annotated[
    int | None,
    typer.Option(min=1, help="Only of this lease of the trial; else of all.", show_default=False),
]
DriverOption = Annotated[
    bool, typer.Option("--driver", help="What the driver printed that holds the trial.")
]


def logs(
    sweep: SweepArgument,
    trial: TrialArgument = None,
    store: StoreOption = None,
    follow: FollowOption = False,
    lines: LinesOption = None,
    epoch: EpochOption = None,
    driver: DriverOption = False,
) -> None:
    """What was printed for a trial, wherever it ran; without a trial, by the sweep's drivers.

    A trial's lines reach the store a few seconds after they are printed.

        saeq logs gpt2-l8-topk t0007
        saeq logs gpt2-l8-topk t0007 --follow --lines 20
        saeq logs gpt2-l8-topk --driver
    """
    from orchestrator.store import Store
    from orchestrator.view.facts import WatchedSweep
    from orchestrator.view.output import last_lines
    from orchestrator.view.show import find_trial

    sweep, trial = split_sweep_and_trial(sweep, trial)
    if epoch is not None and (trial is None or driver):
        raise RequestError("--epoch is about a trial's own output: name a trial, without --driver")
    opened = Store.open(store)
    watched = WatchedSweep.open(opened, sweep)
    trial_id = find_trial(sweep, trial, watched.log.state).id if trial is not None else None
    reader = _reader(opened, watched, trial_id, epoch, driver)
    text = reader.read()
    _write(text if lines is None else last_lines(text, lines))
    if trial_id is not None and not driver:
        _write(_traceback_unless_in(text, watched, trial_id))
    if not text:
        typer.echo(_why_nothing(watched, trial_id, epoch), err=True)
    if follow:
        _follow(reader, watched, trial_id)


def split_sweep_and_trial(sweep: str, trial: str | None) -> tuple[str, str | None]:
    """`demo/t0007` is `demo t0007`. Raises RequestError for both at once."""
    if "/" not in sweep:
        return sweep, trial
    if trial is not None:
        raise RequestError(f"two trials are named: {sweep!r} and {trial!r}; name one")
    sweep, _, trial = sweep.partition("/")
    return sweep, trial or None


def _reader(
    store: Store, watched: WatchedSweep, trial: str | None, epoch: int | None, driver: bool
) -> OutputReader:
    from orchestrator.view.output import OutputReader

    sweep = watched.facts.id
    if trial is None:
        return OutputReader(store, sweep)
    if driver:
        return OutputReader(store, sweep, writer=watched.log.state.trials[trial].holder or "nobody")
    return OutputReader.of_trial(store, sweep, trial, epoch)


def _follow(reader: OutputReader, watched: WatchedSweep, trial: str | None) -> None:
    """Until the trial or the sweep has ended and its last lines had time to come."""
    ended_at: float | None = None
    while ended_at is None or time.monotonic() - ended_at < LAST_LINES_WITHIN_S:
        time.sleep(POLL_S)
        watched.log.refresh()
        if _is_over(watched, trial):
            ended_at = ended_at if ended_at is not None else time.monotonic()
        _write(reader.read())


def _is_over(watched: WatchedSweep, trial: str | None) -> bool:
    from orchestrator.log.sweep_status import is_over, sweep_status

    state = watched.log.state
    if trial is not None:
        return state.trials[trial].ended
    return is_over(sweep_status(watched.facts.num_trials, state))


def _why_nothing(watched: WatchedSweep, trial_id: str | None, epoch: int | None) -> str:
    if trial_id is None:
        return f"sweep {watched.facts.id}: no driver has printed anything"
    trial = watched.log.state.trials[trial_id]
    if epoch is not None and epoch != trial.epoch:
        known = f"its leases go up to {trial.epoch}"
        return f"nothing was printed for {trial_id} under lease {epoch}; {known}"
    if trial.ended:
        return f"nothing was printed for {trial_id}, which ended: {trial.status}"
    if trial.first_started_at is None:
        return f"{trial_id} has not started yet"
    return f"nothing was printed for {trial_id} so far; its lines come a few seconds late"


def _traceback_unless_in(text: str, watched: WatchedSweep, trial_id: str) -> str:
    """That of the log's last failure, when the process had no time to bring it into the store."""
    traceback = watched.log.state.trials[trial_id].traceback.strip()
    if not traceback or traceback.splitlines()[-1] in text:
        return ""
    return f"==> its last failure, from the log <==\n{traceback}\n"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
