"""Why is nothing happening? All that `saeq slurm status` knows, as data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.log.sweep_status import is_over
from orchestrator.nodes.quarantine import HostStanding, hosts_kept_out
from orchestrator.nodes.stages import WITHIN_S, WORDS
from orchestrator.slurm import commands
from orchestrator.slurm.commands import Job, SlurmError
from orchestrator.slurm.folder import SlurmFolder
from orchestrator.slurm.keeper import NEEDS_WORK, JobMemory, Memory
from orchestrator.slurm.keeper_post import Beat, read_beat
from orchestrator.slurm.keeping import all_keys, read_memory
from orchestrator.slurm.reasons import Reason, explain, how_it_ended
from orchestrator.slurm.sight import Worker, see, with_end
from orchestrator.slurm.submitting import folder_of
from orchestrator.store import Store, StoreError
from orchestrator.view import cells
from orchestrator.view.sweep_rows import sweep_rows

SHOWN_AFTER_END_S = 3600.0
"""So long a job that ended is shown; later it is counted."""
RECENT_S = 24 * 3600.0

Doing = Literal["waits", "starts", "late", "idle", "works", "stops", "ended", "failed"]


@dataclass(frozen=True)
class QueueView:
    """The work that there is in one store."""

    store: str
    waiting: int = 0
    """Trials that nobody holds and that may run."""
    held_back: int = 0
    """Trials that wait for something else: paused, or for another sweep."""
    running: int = 0
    why: str = ""
    """Why it is not known; empty: it is."""


@dataclass(frozen=True)
class JobView:
    """One line of the table."""

    worker: Worker
    doing: Doing
    why: str
    """In plain words."""
    way_out: str
    tail: str
    """End of the log that tells what failed; empty where nothing did."""
    stage_at: float | None

    def to_json(self) -> dict[str, Any]:
        """As documented for `saeq slurm status --json`."""
        worker, job, itself = self.worker, self.worker.job, self.worker.itself
        return {
            "job": worker.key,
            "state": worker.state,
            "doing": self.doing,
            "nodes": list(worker.hosts),
            "stage": worker.stage,
            "stage_at": self.stage_at,
            "slots": itself.slots if itself is not None else None,
            "sweeps": list(itself.sweeps) if itself is not None else [],
            "left_seconds": job.left_s if job is not None and job.goes else None,
            "starts_at": job.starts_at if job is not None and job.waits else None,
            "restarts": max(worker.num_starts - 1, 0),
            "slurm_reason": worker.reason,
            "why": self.why,
            "way_out": self.way_out,
            "tail": self.tail,
        }


@dataclass(frozen=True)
class UpView:
    """The jobs of one `saeq slurm up`."""

    name: str
    folder: str
    store: str
    jobs: Sequence[JobView]
    num_ended: int
    """Jobs that ended long ago and are not among `jobs`."""
    keeper: Beat | None
    memory: Memory
    is_elastic: bool
    is_going_down: bool


@dataclass(frozen=True)
class StatusView:
    """Everything."""

    ups: Sequence[UpView]
    strays: Sequence[Job]
    """Jobs of ours whose folder is gone."""
    queues: Mapping[str, QueueView]
    kept_out: Sequence[HostStanding]
    drained: Mapping[str, str]
    problem: str = ""
    """Why SLURM could not be asked; empty: it was."""

    @property
    def jobs(self) -> list[JobView]:
        return [job for up in self.ups for job in up.jobs]

    def to_json(self, next_step: str) -> dict[str, Any]:
        """As documented for `saeq slurm status --json`."""
        return {
            "problem": self.problem,
            "ups": [_up_json(up) for up in self.ups],
            "strays": [
                {"job": job.id, "state": job.state, "name": job.name} for job in self.strays
            ],
            "queues": [vars(queue) for queue in self.queues.values()],
            "quarantine": [{"host": s.host, "why": s.why} for s in self.kept_out],
            "drained": dict(self.drained),
            "next": next_step,
        }


def look(folders: Sequence[SlurmFolder], *, strays: bool, now: float | None = None) -> StatusView:
    """Ask SLURM, the folders and the stores, and change nothing.

    Args:
        strays: whether to look for jobs whose folder is gone.
    """
    now = time.time() if now is None else now
    problem, every = "", list[Job]()
    try:
        every = commands.jobs()
    except SlurmError as error:
        problem = str(error)
    stores = _stores(folders)
    queues = {url: _queue(url, store, now) for url, store in stores.items()}
    answering = {url: None if queues[url].why else store for url, store in stores.items()}
    ups = [_up(folder, every, answering, queues, now, is_asked=not problem) for folder in folders]
    known = {str(folder.path) for folder in folders}
    lost = [job for job in every if not job.is_over and folder_of(job.comment) not in ("", *known)]
    return StatusView(
        ups=ups,
        strays=lost if strays else (),
        queues=queues,
        kept_out=_kept_out(answering.values()),
        drained={} if problem else _drained(),
        problem=problem,
    )


def is_recent(folder: SlurmFolder) -> bool:
    """Whether an `up` has something to show: jobs, perhaps, or an end within a day."""
    if not folder.going_down.exists() and not _all_settled(folder):
        return True
    times = [
        folder.record_file.stat().st_mtime,
        *(_changed_at(job.stages) for job in folder.jobs()),
    ]
    return time.time() - max(times) < RECENT_S


def _all_settled(folder: SlurmFolder) -> bool:
    jobs, record = read_memory(folder.keeper_memory).jobs, folder.record()
    known = bool(jobs) and all(job.settled for job in jobs.values())
    return known and (record is None or record.options.get("elastic") is None)


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _stores(folders: Iterable[SlurmFolder]) -> dict[str, Store]:
    records = (folder.record() for folder in folders)
    urls = dict.fromkeys(record.store for record in records if record is not None)
    return {url: Store.open(url) for url in urls}


def _queue(url: str, store: Store, now: float) -> QueueView:
    try:
        rows = [row for row in sweep_rows(store, now) if not is_over(row.state)]
    except StoreError as error:
        return QueueView(url, why=str(error))
    waiting = held_back = 0
    for row in rows:
        queued = row.counts.get("queued", 0)
        is_held = row.state == "paused" or "paused" in row.why or "waits for" in row.why
        waiting, held_back = waiting + (not is_held) * queued, held_back + is_held * queued
    return QueueView(url, waiting, held_back, sum(row.counts.get("running", 0) for row in rows))


def _kept_out(stores: Iterable[Store | None]) -> list[HostStanding]:
    found = [
        standing for store in stores if store is not None for standing in hosts_kept_out(store)
    ]
    return list({standing.host: standing for standing in found}.values())


def _drained() -> dict[str, str]:
    try:
        return commands.drained()
    except SlurmError:
        return {}


def _up(
    folder: SlurmFolder,
    every: Sequence[Job],
    stores: Mapping[str, Store | None],
    queues: Mapping[str, QueueView],
    now: float,
    *,
    is_asked: bool,
) -> UpView:
    record, memory = folder.record(), read_memory(folder.keeper_memory)
    ids = record.submitted if record is not None else ()
    listed = {job.id: job for job in every if job.id in ids or job.id.split("_")[0] in ids}
    known = [*memory.jobs, *(job.key for job in folder.jobs())]
    store = stores.get(record.store) if record is not None else None
    seen = see(all_keys(ids, listed, known), listed, folder, store, now)
    queue = queues.get(record.store) if record is not None else None
    has_work = queue is None or queue.waiting > 0
    views = []
    for worker in seen:
        job = memory.jobs.get(worker.key, JobMemory())
        if _is_long_over(worker, job, now):
            continue
        asked = _asked(worker) if is_asked and not job.settled else worker
        views.append(job_view(asked, job, has_work, now))
    return UpView(
        name=folder.name,
        folder=str(folder.path),
        store=record.store if record is not None else "",
        jobs=views,
        num_ended=len(seen) - len(views),
        keeper=read_beat(folder),
        memory=memory,
        is_elastic=record is not None and record.options.get("elastic") is not None,
        is_going_down=folder.going_down.exists(),
    )


def _asked(worker: Worker) -> Worker:
    try:
        return with_end(worker)
    except SlurmError:
        return worker  # it answered a moment ago: what is known is shown


def _is_long_over(worker: Worker, job: JobMemory, now: float) -> bool:
    newest = max([job.at, *(mark.at for mark in worker.marks)])
    return worker.is_over and now - newest > SHOWN_AFTER_END_S


def job_view(worker: Worker, job: JobMemory, has_work: bool, now: float) -> JobView:
    """What one job does, and why it does not do more.

    Args:
        has_work: whether its store has trials that nobody holds.
    """
    doing, reason = _doing(worker, job, has_work, now)
    tail = worker.tail() if doing in ("failed", "late") else ""
    if doing == "failed" and not tail and worker.failure is not None:
        tail = worker.failure.tail
    stage_at = worker.marks[-1].at if worker.marks else None
    return JobView(worker, doing, reason.words, reason.way_out, tail, stage_at)


def _doing(worker: Worker, job: JobMemory, has_work: bool, now: float) -> tuple[Doing, Reason]:
    if worker.waits:
        return "waits", explain(worker.reason)
    if worker.goes and worker.state == "COMPLETING":
        return "stops", Reason("its last processes are being cleared up")
    if worker.goes:
        return _going(worker, has_work, now)
    if job.settled.startswith("failed") or worker.failure is not None:
        why = worker.failure.why if worker.failure is not None else ""
        return "failed", Reason(why or job.settled.removeprefix("failed: "))
    if job.settled:
        return "ended", Reason(job.settled)
    if worker.state == "GONE":
        return _gone(worker, job, now)
    end = worker.ended
    code, signal = (end.exit_code, end.signal) if end is not None else (0, 0)
    reason = how_it_ended(worker.state, worker.reason, code, signal)
    is_fine = worker.state in ("COMPLETED", "CANCELLED")
    return ("ended" if is_fine else "failed"), reason


def _gone(worker: Worker, job: JobMemory, now: float) -> tuple[Doing, Reason]:
    if worker.reached("ended"):
        return "ended", Reason(worker.marks[-1].detail or "it ended by itself")
    if worker.num_starts == 0 and now - job.at < 60.0:
        return "waits", Reason("SLURM does not list it yet")
    stage = WORDS[worker.stage] if worker.stage is not None else "nothing"
    return "failed", Reason(
        f"SLURM has forgotten it, and it did not say that it ended; last: {stage}"
    )


def _going(worker: Worker, has_work: bool, now: float) -> tuple[Doing, Reason]:
    itself, standing = worker.itself, worker.standing()
    if worker.failure is not None:
        return "failed", Reason(worker.failure.why)
    if itself is not None and itself.slots:
        return "works", Reason(itself.state if itself.state != "serving" else "")
    waits_for = standing.waits_for
    needs_work = waits_for is None or waits_for in NEEDS_WORK
    if needs_work and itself is not None and not has_work:
        return "idle", Reason("no work is left that nobody holds")
    if waits_for is None or (worker.reached("lease") and itself is not None):
        return "works", Reason(itself.state if itself is not None else "")
    limit = WITHIN_S.get(waits_for)
    if standing.due_at is None or limit is None:
        return "starts", Reason(f"waits for: {WORDS[waits_for]}")
    if standing.is_overdue(now):
        late = cells.duration(now - standing.due_at)
        return "late", Reason(f"{WORDS[waits_for]}: overdue by {late}")
    return "starts", Reason(f"{WORDS[waits_for]}: due in {cells.duration(standing.due_at - now)}")


def _up_json(up: UpView) -> dict[str, Any]:
    return {
        "name": up.name,
        "folder": up.folder,
        "store": up.store,
        "elastic": up.is_elastic,
        "going_down": up.is_going_down,
        "keeper": None if up.keeper is None else vars(up.keeper),
        "given_up": up.memory.given_up,
        "excluded": list(up.memory.excluded),
        "ended_long_ago": up.num_ended,
        "jobs": [job.to_json() for job in up.jobs],
    }
