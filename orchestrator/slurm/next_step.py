"""The closing sentence of `saeq slurm status`: the next thing to do."""

from __future__ import annotations

import time

from orchestrator.slurm.reasons import explain
from orchestrator.slurm.status import JobView, StatusView, UpView


def next_step(view: StatusView) -> str:
    """What its reader should do now, the most pressing thing first."""
    if view.problem:
        return "SLURM could not be asked; what is shown is from the jobs' own files."
    if not view.ups and not view.strays:
        return (
            "No jobs were submitted from here: `saeq slurm up --jobs 1 --time 01:00:00` does it "
            "(`--dry-run` first)."
        )
    if view.strays:
        ids = " ".join(job.id for job in view.strays)
        return f"The folder of {ids} is gone: `saeq slurm down` ends such jobs, too."
    for up in view.ups:
        found = _about(up, view)
        if found:
            return found
    return _about_all(view)


def _about(up: UpView, view: StatusView) -> str:
    """What is wrong with the jobs of one `up`; empty where nothing is."""
    alive = [job for job in up.jobs if job.doing not in ("ended", "failed")]
    if up.memory.given_up:
        return f"Mend what the log above says, `saeq slurm down {up.name}`, then up again."
    if up.is_going_down and alive:
        return f"{up.name} is going down: wait, or `saeq slurm down {up.name} --now`."
    late = [job for job in up.jobs if job.doing == "late"]
    if late and up.keeper is None:
        return f"{late[0].worker.key} hangs and nobody keeps watch: {_keep(up)}"
    stuck = [job for job in alive if job.doing == "waits" and _is_stuck(job)]
    if stuck:
        return f"{stuck[0].worker.key} will not start as it is: {stuck[0].way_out}."
    failed = [job for job in up.jobs if job.doing == "failed"]
    if failed and not alive and _has_work(up, view):
        return f"{failed[0].worker.key} failed (log above); when it is mended: `saeq slurm up`."
    if any(job.doing == "starts" for job in up.jobs) and up.keeper is None:
        return f"Jobs start and nobody keeps watch over it: {_keep(up)}"
    return ""


def _about_all(view: StatusView) -> str:
    jobs = [job for job in view.jobs if job.doing not in ("ended", "failed", "stops")]
    waiting = sum(queue.waiting for queue in view.queues.values())
    running = sum(queue.running for queue in view.queues.values())
    elastic = any(up.is_elastic and up.keeper is not None for up in view.ups)
    unknown = [queue.why for queue in view.queues.values() if queue.why]
    if unknown:
        return f"The store does not answer from here: {unknown[0]}"
    if not jobs:
        if not waiting:
            return "Nothing is left to do: `saeq ls` shows the sweeps, `saeq submit FILE` adds one."
        return (
            "Wait: the keeper submits a job for it."
            if elastic
            else f"No job is left, and {_trials(waiting)} for one: `saeq slurm up`."
        )
    if not waiting and not running:
        return (
            "The queue has no work: `saeq submit FILE` gives it some; idle jobs end by themselves."
        )
    if any(job.doing in ("works", "idle") for job in jobs):
        return "It works: `saeq watch` shows the sweeps."
    if any(job.doing in ("starts", "late") for job in jobs):
        return "Wait: a job is starting, and its keeper acts if it does not."
    expected = [job.worker.job.starts_at for job in jobs if job.worker.job is not None]
    known = [at for at in expected if at is not None and at > time.time()]
    when = f"; the first is expected at {_clock(min(known))}" if known else ""
    way_out = next((job.way_out for job in jobs if job.way_out), "")
    hint = f" Or: {way_out}." if way_out else ""
    return f"All jobs wait for SLURM{when}: nothing has to be done.{hint}"


def _is_stuck(job: JobView) -> bool:
    reason = explain(job.worker.reason)
    return reason.is_hopeless or reason.is_held


def _has_work(up: UpView, view: StatusView) -> bool:
    queue = view.queues.get(up.store)
    return queue is None or bool(queue.waiting)


def _keep(up: UpView) -> str:
    return f"`saeq slurm keep {up.name} --detach` cancels what hangs and tries elsewhere."


def _trials(count: int) -> str:
    return "a trial waits" if count == 1 else f"{count} trials wait"


def _clock(at: float) -> str:
    near = at - time.time() < 86400
    return time.strftime("%H:%M" if near else "%Y-%m-%d %H:%M", time.localtime(at))
