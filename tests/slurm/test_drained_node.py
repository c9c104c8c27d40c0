"""Nodes that take no jobs: status says so; and a job of the doctor's, through all stages."""

from __future__ import annotations

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.student import Student

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_status_says_that_a_node_is_drained_and_why_the_job_waits(
    student: Student, slurm: SlurmCluster
) -> None:
    student.submit()
    for node in slurm.nodes:
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=fan is dead")

    student.saeq("slurm", "up", "--detach", "--time", "20", "--every", "1s")
    student.wait_for(
        lambda: (
            any("Nodes required" in j["slurm_reason"] for j in student.jobs().values())
            or any("NotAvail" in j["slurm_reason"] for j in student.jobs().values())
        ),
        "SLURM says why",
    )

    status = student.status()
    (job,) = status["ups"][0]["jobs"]
    assert job["doing"] == "waits"
    assert "down, drained" in job["why"]
    assert "sinfo -R" in job["way_out"]
    assert status["drained"]["n1"] == "drained: fan is dead"
    assert status["ups"][0]["keeper"]["pid"]
    page = student.saeq("slurm", "status")
    assert "node n1 takes no jobs, drained: fan is dead" in page
    assert "kept by process" in page
    assert "4 wait for a slot" in page
    student.saeq("slurm", "down")
    student.wait_for(lambda: not student.up().keeper_beat.exists(), "its keeper ends by itself")


def test_the_doctor_sends_a_job_through_all_stages_and_leaves_nothing(
    student: Student, slurm: SlurmCluster
) -> None:
    said = student.saeq("doctor", "--slurm")

    assert "slurm-wlm" in said or "slurm 2" in said
    assert "main (default): 2 nodes" in said
    for stage in ("script started", "environment ready", "Ray up", "first lease", "first report"):
        assert stage in said
    assert "a worker job does all that it has to do" in said
    assert "RUNNING" not in slurm.states().values()
    assert not student.up("doctor").path.exists()
    assert list(student.folder.glob("store/doctor-*")) == []
