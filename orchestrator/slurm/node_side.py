"""What the keeper knows of a job, as the starter's side of its node's record in the store."""

from __future__ import annotations

from orchestrator.nodes.records import Failure, NodeSide, read_side, remove_node, write_side
from orchestrator.slurm.folder import node_of
from orchestrator.slurm.keeper import JobMemory, Memory
from orchestrator.slurm.reasons import explain
from orchestrator.slurm.sight import Worker
from orchestrator.store import Store

KEPT_S = 3600.0
"""So long a failed start stays to be seen in `saeq nodes`."""
AGAIN_S = 30.0
"""Written again after so long, also when nothing changed: silence is a sign, too."""


def write(store: Store, up: str, worker: Worker, memory: Memory, now: float) -> None:
    """Say how a job's start stands, or forget one that has ended. Raises StoreError."""
    node, job = node_of(worker.key), memory.jobs.get(worker.key, JobMemory())
    before = read_side(store, node, "starter")
    if job.settled and not job.settled.startswith("failed"):
        if before is not None:
            remove_node(store, node)
        return
    if job.settled and (before is None or before.failure is not None):
        if before is not None and now - before.at > KEPT_S:
            remove_node(store, node)
        return
    side = NodeSide(
        id=node,
        kind="slurm",
        host=worker.host or job.host,
        labels=_labels(up, worker),
        marks=worker.marks,
        failure=_failure(worker, job, now) if job.settled else None,
        since=worker.marks[0].at if worker.marks else now,
        state=_state(worker, job),
    )
    if before is None or _differs(before, side) or now - before.at > AGAIN_S:
        write_side(store, "starter", side)


def forget(store: Store, key: str) -> None:
    """Nothing more is known of a job's node. Raises StoreError."""
    remove_node(store, node_of(key))


def _labels(up: str, worker: Worker) -> dict[str, str]:
    labels = {"provider": "slurm", "job": worker.key, "up": up}
    if worker.job is not None:
        labels["partition"] = worker.job.partition
    return labels


def _failure(worker: Worker, job: JobMemory, now: float) -> Failure:
    if worker.failure is not None:
        return worker.failure
    stage = worker.standing().waits_for or "report"
    why = job.settled.removeprefix("failed: ")
    return Failure(stage=stage, why=why, tail=worker.tail(), at=now)


def _state(worker: Worker, job: JobMemory) -> str:
    if job.settled:
        return job.settled
    if worker.waits:
        return f"waiting: {explain(worker.reason).words}"
    return worker.state.lower()


def _differs(before: NodeSide, side: NodeSide) -> bool:
    return before.model_copy(update={"at": side.at}) != side
