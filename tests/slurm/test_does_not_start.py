"""The packages install, the start script runs, and the program does not start."""

from __future__ import annotations

import pytest

from orchestrator.nodes.quarantine import MAX_FAST_FAILURES, host_standing, note_failure
from orchestrator.nodes.records import read_nodes
from tests.slurm.cluster import SlurmCluster
from tests.slurm.student import Student

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HANGS_ON_N1 = """
echo "activating the environment"
if [ "$SLURMD_NODENAME" = n1 ]; then echo "waiting for the lock of the package cache"; sleep 600; fi
"""


def test_a_start_that_hangs_is_cancelled_and_tried_on_another_node(
    student: Student, slurm: SlurmCluster
) -> None:
    setup = student.folder / "env.sh"
    setup.write_text(HANGS_ON_N1)

    said = student.saeq(
        "slurm", "up", "--setup", str(setup), "--time", "20", "--within", "environment=5s",
        "--every", "1s",
    )  # fmt: skip

    assert "failed on n1: not 'environment ready' within 5s" in said
    assert "    waiting for the lock of the package cache" in said
    assert "in place of" in said
    assert "without n1" in said
    assert "all jobs are up and wait for work" in said
    jobs = student.jobs()
    first, second = sorted(jobs, key=int)
    assert jobs[first]["doing"] == "failed"
    assert "waiting for the lock" in jobs[first]["tail"]
    assert jobs[second]["nodes"] == ["n2"]
    assert len(host_standing(student.store, "n1").failures) == 1
    assert "ExcNodeList=n1" in slurm.run("scontrol", "show", "job", second)
    (failed,) = [record for record in read_nodes(student.store) if record.failure is not None]
    assert failed.failure is not None
    assert failed.failure.stage == "environment"
    page = student.saeq("slurm", "status")
    assert "not put on n1 again" in page
    assert "submit FILE" in page, "nothing is in the queue, and it says so"


def test_a_setup_that_fails_everywhere_is_given_up_and_said_to_be_no_fault_of_a_node(
    student: Student, slurm: SlurmCluster
) -> None:
    setup = student.folder / "env.sh"
    setup.write_text('echo "module: command not found" >&2\nfalse\n')

    said = student.saeq("slurm", "up", "--setup", str(setup), "--every", "1s", code=1)

    assert "module: command not found" in said
    assert "it is not one node" in said
    assert set(slurm.states().values()) == {"FAILED"}
    assert len(slurm.states()) == 3
    assert "Mend what the log above says" in student.status()["next"]


def test_hosts_in_quarantine_are_excluded_and_the_refusal_says_what_to_do(
    student: Student, slurm: SlurmCluster
) -> None:
    for host in slurm.nodes:
        for _ in range(MAX_FAST_FAILURES):
            note_failure(student.store, host, "CUDA error: no device")

    said = student.saeq("slurm", "up", code=2)

    assert "sbatch" in said
    assert "configuration is not available" in said
    assert not student.up().path.exists(), "nothing was submitted, so there is nothing to look at"
    assert slurm.states() == {}


def test_a_job_that_can_never_start_is_told_from_one_that_waits(
    student: Student, slurm: SlurmCluster
) -> None:
    said = student.saeq(
        "slurm", "up", "--partition", "short", "--time", "4h", "--every", "1s", code=1
    )

    assert "more time than its partition allows" in said
    (job,) = student.jobs().values()
    assert job["doing"] == "waits"
    assert job["slurm_reason"] == "PartitionTimeLimit"
    assert "will not start as it is" in student.status()["next"]
    assert set(slurm.states().values()) == {"PENDING"}
    student.saeq("slurm", "down")
    assert "PENDING" not in slurm.states().values()


def test_a_launch_that_fails_is_released_once_and_not_to_that_node(
    student: Student, slurm: SlurmCluster
) -> None:
    with slurm.failing_prolog("n1"):
        said = student.saeq("slurm", "up", "--time", "20", "--every", "1s")

    assert "released once" in said
    (job,) = student.jobs().values()
    assert job["nodes"] == ["n2"]
