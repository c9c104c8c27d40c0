"""One job of two nodes: a Ray across both, for this job alone, gone with it.

Both slurmd are on one machine here, so both nodes have one address: that nodes find each other
across a network is not shown.
"""

from __future__ import annotations

import stat

import pytest

from orchestrator.log.events import DriverStarted
from tests.chaos.segments import events_of, read_segments
from tests.slurm.worker_jobs import WorkerJobs

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_one_sweep_over_the_nodes_of_one_job(workers: WorkerJobs) -> None:
    workers.submit(tokens="500k", members=2)
    job = workers.start(nodes=2)
    workers.wait_for_stage(job, "lease")
    token = workers.job(job).path / "ray-0" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    assert not [line for line in workers.processes_of(job) if token.read_text() in line]
    folders = workers.scratch_of(job)
    assert len([folder for folder in folders if "ray" in folder.name]) == 2, "one a node"

    workers.wait_for_end("tiny")
    workers.wait_for_no_jobs()
    verdict = workers.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    events = list(events_of(read_segments(workers.store, "tiny")))
    assert {event.num_nodes for event in events if isinstance(event, DriverStarted)} == {2}
    assert "ended nothing to do" in workers.job(job).lines()
    assert workers.processes_of(job) == []
    assert [folder for folder in folders if folder.exists()] == []
