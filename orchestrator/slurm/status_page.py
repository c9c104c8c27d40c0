"""`saeq slurm status` as lines of text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.text import Text

from orchestrator.nodes.stages import WORDS
from orchestrator.slurm.next_step import next_step
from orchestrator.slurm.status import JobView, StatusView, UpView
from orchestrator.view import cells
from orchestrator.view.columns import Column, cut, table_lines

STYLES = {
    "works": "green",
    "idle": "bright_black",
    "starts": "cyan",
    "waits": "yellow",
    "late": "bold red",
    "failed": "bold red",
    "stops": "bright_black",
    "ended": "bright_black",
}
MAX_TAILS = 3
"""Of so many failed jobs the log is shown; with more it is one fault."""


def status_page(view: StatusView, width: int | None, *, ascii_only: bool = False) -> list[Text]:
    """The table, what failed, and what to do.

    Args:
        width: terminal cells; None: as wide as it gets.
    """
    lines: list[Text] = []
    if view.problem:
        lines += [Text(view.problem, style="bold red"), Text("")]
    for up in view.ups:
        lines += [*_up_lines(up, width, ascii_only), Text("")]
    for job in view.strays:
        words = f"job {job.id} ({job.state.lower()}, {job.name}): its folder is gone"
        lines.append(Text(words, style="yellow"))
    tails = list(_tails(view.jobs, width))
    lines += [*tails, Text("")] if tails else []
    lines += _around(view)
    lines.append(Text.assemble(("next: ", "bold"), next_step(view)))
    return lines


def _up_lines(up: UpView, width: int | None, ascii_only: bool) -> Iterator[Text]:
    keeper = "nobody keeps watch"
    if up.keeper is not None:
        age = cells.duration(max(time.time() - up.keeper.at, 0.0))
        where = f"process {up.keeper.pid} on {up.keeper.host}"
        keeper = f"kept by {where}, looked {age} ago"
    parts = [f"store {up.store}", keeper, *(["elastic"] if up.is_elastic else [])]
    parts += ["going down"] if up.is_going_down else []
    yield cut(Text.assemble((up.name, "bold"), f"  {'; '.join(parts)}"), width or 10_000)
    if up.jobs:
        yield from _table(up.jobs, width, ascii_only)
    elif not up.num_ended:
        yield Text("  no jobs yet" if not up.is_elastic else "  no jobs: they come with work")
    if up.num_ended:
        yield Text(f"  and {up.num_ended} that ended more than an hour ago", style="bright_black")
    if up.memory.given_up:
        yield Text(f"  given up: {up.memory.given_up}", style="bold red")
    if up.memory.excluded:
        nodes = ", ".join(up.memory.excluded)
        yield Text(f"  not put on {nodes} again: a start failed there", style="yellow")


def _table(jobs: Sequence[JobView], width: int | None, ascii_only: bool) -> list[Text]:
    now = time.time()
    columns = [
        Column("job", [Text(job.worker.key, style="bold") for job in jobs]),
        Column("SLURM", [job.worker.state.lower() for job in jobs], 5, shrinks_to=8),
        Column("node", [_node(job) for job in jobs], 2, shrinks_to=8),
        Column("stage", [_stage(job, now) for job in jobs], 3),
        Column("does", [Text(job.doing, style=STYLES[job.doing]) for job in jobs]),
        Column("trials", [_slots(job) for job in jobs], 4, right=True),
        Column("sweeps", [_sweeps(job) for job in jobs], 7, shrinks_to=10),
        Column("left", [_left(job) for job in jobs], 6, right=True),
        Column("restarts", [_restarts(job) for job in jobs], 8, right=True),
        Column("why", [cells.one_line(_why(job, now)) for job in jobs], shrinks_to=24),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)


def _node(job: JobView) -> str:
    hosts = job.worker.hosts
    if not hosts:
        return cells.UNKNOWN
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]} +{len(hosts) - 1}"


def _stage(job: JobView, now: float) -> str:
    stage = job.worker.stage
    if stage is None:
        return cells.UNKNOWN
    age = "" if job.stage_at is None else f" ({cells.duration(max(now - job.stage_at, 0.0))})"
    return f"{WORDS[stage]}{age}"


def _slots(job: JobView) -> str:
    itself = job.worker.itself
    return cells.UNKNOWN if itself is None or not job.worker.goes else str(itself.slots)


def _sweeps(job: JobView) -> str:
    itself = job.worker.itself
    return ", ".join(itself.sweeps) if itself is not None and itself.sweeps else cells.UNKNOWN


def _left(job: JobView) -> str:
    found = job.worker.job
    return cells.duration(found.left_s) if found is not None and found.goes else cells.UNKNOWN


def _restarts(job: JobView) -> str:
    return str(job.worker.num_starts - 1) if job.worker.num_starts > 1 else cells.UNKNOWN


def _why(job: JobView, now: float) -> str:
    found = job.worker.job
    expected = found.starts_at if found is not None and found.waits else None
    if expected is None or expected <= now:
        return job.why
    return f"{job.why}; expected in {cells.duration(expected - now)}"


def _tails(jobs: Sequence[JobView], width: int | None) -> Iterator[Text]:
    told = [job for job in jobs if job.tail][-MAX_TAILS:]
    for job in told:
        files = job.worker.folder
        where = f" ({files.path})" if files is not None else ""
        yield Text(f"{job.worker.key}: {job.why}; end of its log{where}", style="bold")
        for line in job.tail.splitlines():
            yield cut(Text(f"  {cells.one_line_kept(line)}", style="bright_black"), width or 10_000)


def _around(view: StatusView) -> Iterator[Text]:
    """Hints of all jobs, nodes that are out, and the work there is."""
    ways = {job.worker.reason: job.way_out for job in view.jobs if job.way_out}
    for reason, way_out in ways.items():
        yield Text(f"{reason}: {way_out}")
    for host, why in view.drained.items():
        yield Text(f"node {host} takes no jobs, {why}", style="yellow")
    for standing in view.kept_out:
        words = f"node {standing.host} is in quarantine: {standing.why}"
        yield Text(f"{words}; `saeq nodes --release {standing.host}`", style="yellow")
    for queue in view.queues.values():
        if queue.why:
            yield Text(f"queue: {queue.why}", style="bold red")
            continue
        parts = [f"{queue.running} trials run", f"{queue.waiting} wait for a slot"]
        parts += [f"{queue.held_back} are held back"] if queue.held_back else []
        yield Text(f"queue: {', '.join(parts)}")
