"""As many jobs as there is work."""

from __future__ import annotations

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.student import Student

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_jobs_come_with_work_and_go_with_it(student: Student, slurm: SlurmCluster) -> None:
    options = ["--elastic", "0:2", "--cpus", "5", "--time", "20", "--idle", "5s", "--every", "1s"]
    with student.running("slurm", "up", *options) as keeper:
        student.wait_for(lambda: student.up().keeper_memory.exists(), "the keeper looks")
        assert slurm.states() == {}, "there is no work"

        queued = student.submit(members=1)
        student.wait_for(lambda: len(_alive(slurm)) == 2, "two jobs, not one for each of 4 trials")
        student.wait_for(lambda: student.is_over(queued), "the sweep is over")
        student.wait_for(lambda: not _alive(slurm), "and so are the jobs")

        assert len(slurm.states()) <= 3
        assert keeper.process.poll() is None, "it waits for the next sweep"
        assert "4 trials wait that nobody holds" in keeper.said()
        assert "Nothing is left to do" in student.status()["next"]
    assert keeper.process.returncode == 130
    assert "the jobs go on" in keeper.said()
    verdict = student.verdict(queued)
    assert verdict.holds, str(verdict)


def _alive(slurm: SlurmCluster) -> list[str]:
    over = ("COMPLETED", "CANCELLED", "FAILED")
    return [job for job, state in slurm.states().items() if state not in over]
