"""A driver that slept while another took its trials over, and woke up."""

from __future__ import annotations

import signal
import time

import pytest

from orchestrator.log.events import Started, TrialEvent
from tests.chaos.segments import events_of, read_segments
from tests.failures.conftest import Begin
from tests.failures.scenario import Scenario, all_checkpointed

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]


def test_its_late_writes_do_nothing(begin: Begin) -> None:
    scenario = begin(num_serves=2)
    first, second = scenario.serves
    scenario.start(first)
    scenario.wait_for(all_checkpointed, "four trials with checkpoints")
    stale = scenario.driver_of(first)
    asleep_at = time.time()
    stale.send(signal.SIGSTOP)
    scenario.start(second)
    try:
        scenario.wait_for(
            lambda state: all(t.holder != stale.writer for t in state.trials.values()),
            "all trials under new leases",
        )
    finally:
        awake_at = time.time()
        stale.send(signal.SIGCONT)
    scenario.scene.damage.stalls.append((asleep_at, awake_at))
    scenario.finish()
    verdict = scenario.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    assert_dropped(scenario, stale.writer, awake_at)


def assert_dropped(scenario: Scenario, stale: str, awake_at: float) -> None:
    """It may end one write that it was in the middle of; then it has lost its leases and knows."""
    events = list(events_of(read_segments(scenario.store, scenario.sweep)))
    mine = [e for e in events if isinstance(e, TrialEvent) and e.writer == stale]
    taken = {e.trial: e.epoch for e in events if isinstance(e, Started) and e.writer != stale}
    late = [e for e in mine if e.at > awake_at and e.epoch < taken.get(e.trial, 0)]
    assert len(late) <= 1, late
