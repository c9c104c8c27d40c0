"""The whole Ray gone, or the machine with it, and what was being written then cut short."""

from __future__ import annotations

import pytest

from tests.failures.conftest import Begin
from tests.failures.scenario import all_checkpointed

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]


def test_a_new_ray_on_the_same_store_goes_on_where_the_old_one_was(begin: Begin) -> None:
    scenario = begin()
    scenario.start()
    scenario.wait_for(all_checkpointed, "four trials with checkpoints")
    scenario.strike("kill-ray")
    scenario.finish()
    verdict = scenario.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    assert {r.trial for r in verdict.resumes} == {"t0000", "t0001", "t0002", "t0003"}
    assert all(resume.from_tokens > 0 for resume in verdict.resumes), "none from the start"


def test_a_truncated_checkpoint_and_a_torn_log_are_gone_around(begin: Begin) -> None:
    scenario = begin()
    scenario.start()
    scenario.wait_for(
        lambda s: all_checkpointed(s) and all(map(scenario.has_two_checkpoints, s.trials)),
        "two checkpoints of every trial",
    )
    scenario.strike("kill-machine")
    damaged = scenario.strike("cut-checkpoint")
    torn = scenario.strike("cut-log")
    scenario.start()
    scenario.finish()
    verdict = scenario.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    assert scenario.store.backend.get(torn), "what was whole of the log is still there"
    ((trial, _),) = scenario.scene.damage.cut_checkpoints
    first = next(resume for resume in verdict.resumes if resume.trial == trial)
    newest = int(damaged.rstrip("/").split("/checkpoints/")[1].partition("-")[0])
    assert 0 < first.from_tokens < newest, "the one before the damaged one"
