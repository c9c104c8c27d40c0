"""Jobs as SLURM, a folder and a store would show them, without any of the three."""

from __future__ import annotations

from typing import Any

from orchestrator.nodes.records import Failure, NodeSide
from orchestrator.nodes.stages import STAGES, Mark, Stage
from orchestrator.slurm.commands import Job, JobDetails
from orchestrator.slurm.sight import Worker

NOW = 1_000_000.0


def job(key: str = "7", state: str = "RUNNING", host: str = "n1", **changes: Any) -> Job:
    """As squeue lists it."""
    waits = state == "PENDING"
    values: dict[str, Any] = {
        "id": key,
        "state": state,
        "hosts": () if waits or not host else (host,),
        "partition": "main",
        "submitted_at": NOW - 100.0,
        "starts_at": None if waits else NOW - 90.0,
        "left_s": 3600.0,
        "limit_s": 7200.0,
        "reason": "",
        "comment": "",
        "name": "saeq-workers",
    }
    return Job(**{**values, **changes})


def marks(until: Stage, host: str = "n1", at: float = NOW - 90.0, apart_s: float = 1.0) -> Any:
    """One mark a stage, up to one of them."""
    reached = STAGES[: STAGES.index(until) + 1]
    return tuple(Mark(stage, at + apart_s * place, host) for place, stage in enumerate(reached))


def worker(
    key: str = "7",
    state: str = "RUNNING",
    until: Stage = "allocated",
    *,
    slots: int | None = None,
    failed: Stage | None = None,
    exit_code: int = 0,
    at: float = NOW - 90.0,
    **changes: Any,
) -> Worker:
    """A job that came to a stage.

    Args:
        slots: trials that it holds; None: its node was not heard of.
        failed: the stage that its script gave up before.
    """
    listed = None if state == "GONE" else job(key, state, **changes)
    waits = state == "PENDING"
    ended = None
    if listed is not None and listed.is_over:
        ended = JobDetails(key, state, listed.reason, exit_code, 0, 0, listed.hosts, "", ())
    return Worker(
        key=key,
        job=listed,
        ended=ended,
        marks=(Mark("asked", NOW - 100.0),) if waits else marks(until, at=at),
        num_starts=0 if waits else 1,
        failure=None if failed is None else Failure(stage=failed, why="no such file", at=NOW),
        itself=None if slots is None else NodeSide(id=f"slurm-{key}", slots=slots, at=NOW),
    )
