"""Three sweeps at once in one job: the urgent one comes first, and none is left behind."""

from __future__ import annotations

import pytest

from orchestrator.control.orders import Orders
from orchestrator.log.sweep_log import SweepLog
from tests.slurm.worker_jobs import WorkerJobs

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_of_three_sweeps_the_one_of_high_priority_comes_first(workers: WorkerJobs) -> None:
    sweeps = [workers.submit(name, tokens="300k", members=2) for name in ("a", "b", "urgent")]
    Orders(workers.store, "urgent").prioritise(10)
    job = workers.start()
    workers.wait_for_end(*sweeps)
    workers.wait_for_no_jobs()

    assert workers.num_starts(job) == 1
    first = {sweep: first_lease(workers, sweep) for sweep in sweeps}
    assert min(first, key=lambda sweep: first[sweep]) == "urgent"
    for sweep in sweeps:
        verdict = workers.verdict(sweep)
        assert verdict.holds, str(verdict)
        assert verdict.counts == {"finished": 4}


def first_lease(workers: WorkerJobs, sweep: str) -> float:
    """When its first trial was begun, seconds since 1970."""
    trials = SweepLog(workers.store, sweep).refresh().trials.values()
    return min(trial.started.at for trial in trials if trial.started is not None)
