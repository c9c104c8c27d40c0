"""`saeq slurm down`: trials are checkpointed and given back, jobs end, none is left in squeue."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.slurm import commands, node_side
from orchestrator.slurm.commands import Job
from orchestrator.slurm.folder import SlurmFolder
from orchestrator.slurm.keeper_post import read_beat
from orchestrator.slurm.sight import see
from orchestrator.slurm.submitting import folder_of
from orchestrator.store import Store, StoreError

DRAINED_WITHIN_S = 75.0
"""A `serve` that was asked to stop has ended within a minute (serving/serve.py)."""
GONE_WITHIN_S = 120.0
"""SLURM kills what is left after KillWait, 30 s by default, and then clears up."""
LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class DownRequest:
    """Which jobs."""

    folders: Sequence[SlurmFolder]
    strays: bool
    """Also jobs of ours whose folder is gone."""
    at_once: bool = False
    """Cancel without waiting for checkpoints."""


def bring_down(
    request: DownRequest,
    tell: Callable[[str, str, str], None],
    *,
    drained_within_s: float = DRAINED_WITHIN_S,
) -> list[Job]:
    """End jobs; the ones that are still listed at the end, which is none unless SLURM is stuck.

    Raises SlurmError.
    """
    for folder in request.folders:
        folder.going_down.touch()  # jobs do not requeue themselves, the keeper submits none
    found = _jobs(request)
    if not found:
        tell("", "no job is there", "")
    waiting = [job.id for job in found if job.waits]
    if waiting:
        commands.cancel(waiting)
        tell("", f"cancelled while they waited: {', '.join(waiting)}", "")
    going = [job for job in found if not job.waits]
    if going and not request.at_once:
        _drain(going, request, tell)
        _await(request, drained_within_s)
    left = _jobs(request)
    if left:
        commands.cancel([job.id for job in left])
        tell("", f"cancelled: {', '.join(job.id for job in left)}", "")
        left = _await(request, GONE_WITHIN_S)
    if not left:
        _forget(request)
    return left


def _drain(
    going: Sequence[Job], request: DownRequest, tell: Callable[[str, str, str], None]
) -> None:
    """The signal of a time limit: the script tells `serve`, waits for it, and does not requeue."""
    by_path = {str(folder.path): folder for folder in request.folders}
    drained = []
    for job in going:
        folder = by_path.get(folder_of(job.comment)) or _folder_with(job, request.folders)
        if folder is None:
            commands.cancel([job.id])
        elif see([job.id], {job.id: job}, folder, None)[0].reached("probe"):
            commands.cancel([job.id], signal="USR2", batch=True)
            drained.append(job.id)
        else:
            commands.cancel([job.id])  # it has nothing to give back yet
    if drained:
        text = "asked to stop: trials are being checkpointed and given back"
        tell("", f"{', '.join(drained)}: {text}", "")


def _jobs(request: DownRequest) -> list[Job]:
    """What SLURM lists of them and is not over."""
    ids: set[str] = set()
    for folder in request.folders:
        record = folder.record()
        ids.update(record.submitted if record is not None else ())
    paths = {str(folder.path) for folder in request.folders}
    found = []
    for job in commands.jobs():
        of = folder_of(job.comment)
        is_asked = job.id in ids or job.id.split("_")[0] in ids or of in paths
        is_stray = request.strays and of != "" and not _is_there(of)
        if not job.is_over and (is_asked or is_stray):
            found.append(job)
    return found


def _is_there(path: str) -> bool:
    return SlurmFolder(Path(path)).record_file.exists()


def _folder_with(job: Job, folders: Sequence[SlurmFolder]) -> SlurmFolder | None:
    """For jobs whose comment is the user's own."""
    for folder in folders:
        record = folder.record()
        if record is not None and {job.id, job.id.split("_")[0]} & set(record.submitted):
            return folder
    return None


def _await(request: DownRequest, within_s: float) -> list[Job]:
    deadline = time.monotonic() + within_s
    while (left := _jobs(request)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    return left


def _forget(request: DownRequest) -> None:
    """What the store says of their nodes goes with them, unless a keeper still has to see it."""
    for folder in request.folders:
        record = folder.record()
        if record is None or read_beat(folder) is not None:
            continue
        store = Store.open(record.store)
        try:
            for job in folder.jobs():
                node_side.forget(store, job.key)
            for key in record.submitted:
                node_side.forget(store, key)
        except StoreError:
            return  # it is for people, and the store is away
