"""One sweep, one store, two jobs on two nodes."""

from __future__ import annotations

import shutil

import pytest

from orchestrator.nodes.records import read_nodes
from orchestrator.queue import QueuedSweep
from tests.slurm.cluster import SlurmCluster
from tests.slurm.student import Student

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_two_jobs_work_off_a_sweep_and_one_of_them_is_cancelled_in_the_middle(
    student: Student, slurm: SlurmCluster
) -> None:
    queued = student.submit(tokens="1M")

    said = student.saeq("slurm", "up", "--jobs", "2", "--cpus", "5", "--time", "20")

    assert "first lease" in said
    assert "all jobs are up and work" in said
    assert "keep workers --detach" in said
    jobs = student.jobs()
    assert {job["nodes"][0] for job in jobs.values()} == {"n1", "n2"}
    assert {job["doing"] for job in jobs.values()} == {"works"}
    assert {record.host for record in read_nodes(student.store)} == {"n1", "n2"}

    victim, survivor = sorted(jobs)
    student.wait_for(lambda: _num_checkpointed(student, queued) >= 3, "both have checkpoints")
    slurm.run("scancel", victim)
    student.wait_for(lambda: student.jobs()[victim]["doing"] == "ended", "one is over")
    assert "cancelled" in student.jobs()[victim]["why"]
    assert student.jobs()[survivor]["doing"] in ("works", "idle")
    student.wait_for(lambda: student.is_over(queued), "the other finishes what is left")

    assert student.saeq("slurm", "down").endswith("goes on where it was\n")
    verdict = student.verdict(queued)
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    assert len(verdict.resumes) >= 1, "what the other had begun was gone on with"
    student.wait_for(lambda: slurm.processes_of_jobs() == [], "nothing is left of them")
    assert read_nodes(student.store) == []


def test_down_checkpoints_and_gives_back_and_finds_jobs_whose_folder_is_gone(
    student: Student, slurm: SlurmCluster
) -> None:
    queued = student.submit(tokens="50M")
    student.saeq("slurm", "up", "--cpus", "4", "--time", "20")
    student.wait_for(lambda: _num_checkpointed(student, queued) >= 2, "two trials are under way")

    said = student.saeq("slurm", "down", "workers")

    assert "being checkpointed and given back" in said
    trials = student.state(queued).by_number()
    assert {trial.status for trial in trials} == {"queued"}
    assert all(driver.ended is not None for driver in student.state(queued).drivers.values())
    student.wait_for(lambda: slurm.processes_of_jobs() == [], "nothing is left of it")

    # It must not start: a job whose folder is gone ends by itself, maybe before we look.
    student.saeq("slurm", "up", "--name", "lost", "--detach", "--sbatch", "begin=now+1hour")
    shutil.rmtree(student.up("lost").path)
    assert "its folder is gone" in student.saeq("slurm", "status")
    assert "PENDING" in slurm.states().values()
    student.saeq("slurm", "down", "--now")
    assert "PENDING" not in slurm.states().values()
    student.wait_for(lambda: slurm.processes_of_jobs() == [], "nothing is left of it")


def _num_checkpointed(student: Student, queued: QueuedSweep) -> int:
    return sum(trial.checkpoint_tokens > 0 for trial in student.state(queued).by_number())
