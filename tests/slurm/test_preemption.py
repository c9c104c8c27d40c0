"""An urgent job takes the node of one of two workers in the middle; nothing is lost."""

from __future__ import annotations

import pytest

from orchestrator.log.events import Preempted
from tests.chaos.segments import events_of, read_segments
from tests.slurm.worker_jobs import WorkerJobs, all_checkpointed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_a_preempted_worker_checkpoints_makes_room_and_comes_back(workers: WorkerJobs) -> None:
    workers.submit(tokens="1M", lrs="1e-3, 2e-3, 3e-3, 4e-3")
    jobs = [workers.start(sbatch={"nodelist": node}) for node in ("n1", "n2")]
    for job in jobs:
        workers.wait_for_stage(job, "report")
    workers.wait_for("tiny", all_checkpointed(2), "two trials with checkpoints")

    workers.slurm.run(
        "sbatch", "--partition=urgent", "--nodelist=n2", "--exclusive", "--time=10",
        "--output=/dev/null", "--wrap=sleep 3",
    )  # fmt: skip
    stayed, taken = jobs
    workers.wait_for_stage(taken, "report", start=2)
    workers.wait_for_end("tiny")
    workers.wait_for_no_jobs()

    assert workers.num_starts(stayed) == 1
    assert workers.num_starts(taken) == 2, "it was requeued once"
    assert "ended requeued: preempted" in workers.job(taken).lines()
    assert "ended nothing to do" in workers.job(taken).lines().splitlines()[-1]
    verdict = workers.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 8}
    assert verdict.resumes
    events = list(events_of(read_segments(workers.store, "tiny")))
    reasons = {event.reason for event in events if isinstance(event, Preempted)}
    assert reasons == {"asked to stop"}, "Ray outlived the signal until all was saved"
