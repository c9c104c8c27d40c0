"""Two jobs of one user side by side on one node, a Ray of somebody else's, and a `scancel`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.worker_jobs import WorkerJobs

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A Ray of the same user on the same machine that has nothing to do with SLURM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.serving.ray_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        while "address" not in json.loads(process.stdout.readline() or b'{"address": ""}'):
            pass
        yield process
    finally:
        process.communicate(timeout=60.0)


def test_scancel_of_one_leaves_nothing_behind_and_harms_nobody(
    workers: WorkerJobs, neighbour: subprocess.Popen[bytes]
) -> None:
    assert neighbour.poll() is None, "the neighbour's Ray started"
    workers.submit(tokens="1M", lrs="1e-3, 2e-3, 3e-3, 4e-3")
    cancelled, staying = (workers.start(sbatch={"nodelist": "n1"}) for _ in range(2))
    for job in (cancelled, staying):
        workers.wait_for_stage(job, "report")
    assert workers.processes_of(cancelled), "its processes are found by their environment"
    folders, others = workers.scratch_of(cancelled), workers.scratch_of(staying)
    assert len(folders) == len(others) == 2, "a folder of the job's, and its Ray's"

    workers.slurm.run("scancel", cancelled)
    workers.wait(
        lambda: not workers.slurm.run("squeue", "-h", "-j", cancelled, check=False), "gone"
    )
    assert workers.processes_of(cancelled) == []
    assert [folder for folder in folders if folder.exists()] == []
    assert "ended ended by SLURM" in workers.job(cancelled).lines()
    assert workers.num_starts(cancelled) == 1, "who cancels a job does not want it back"

    workers.wait_for_end("tiny")
    workers.wait_for_no_jobs()
    assert workers.num_starts(staying) == 1
    assert neighbour.poll() is None, "the neighbour's Ray did not notice"
    verdict = workers.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 8}
    assert [folder for folder in (*folders, *others) if folder.exists()] == []
