"""A job that meets its time limit checkpoints, requeues itself, and goes on where it was."""

from __future__ import annotations

import pytest

from tests.slurm.worker_jobs import WorkerJobs, all_checkpointed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_a_worker_comes_back_after_its_time_limit(workers: WorkerJobs) -> None:
    workers.submit(tokens="2M")
    job = workers.start(time="60m", signal="60")
    workers.wait_for_stage(job, "report")
    workers.wait_for("tiny", all_checkpointed(4), "four trials with checkpoints")
    # Time passes, as far as SLURM is concerned.
    minutes = int(workers.slurm.run("squeue", "-h", "-j", job, "-o", "%M").split(":")[-2])
    workers.slurm.run("scontrol", "update", f"jobid={job}", f"timelimit={minutes + 2}")
    workers.wait(
        lambda: "ended requeued: time limit" in workers.job(job).lines(), "it met its limit"
    )
    workers.slurm.run("scontrol", "update", f"jobid={job}", "timelimit=60")
    workers.wait_for_stage(job, "report", start=2)
    workers.wait_for_end("tiny")
    workers.wait_for_no_jobs()

    assert workers.num_starts(job) == 2
    verdict = workers.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    assert len(verdict.resumes) == 4
