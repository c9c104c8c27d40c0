"""Two commands started at the same moment on everything there is."""

from __future__ import annotations

from collections import Counter

import pytest

from orchestrator.log.events import Started
from tests.chaos.segments import events_of, read_segments
from tests.failures.conftest import Begin

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]


def test_no_trial_is_run_by_two(begin: Begin) -> None:
    scenario = begin(num_serves=2, tokens="200k", report="20k", lrs="1e-3, 2e-3, 3e-3, 4e-3, 5e-3")
    scenario.start()
    scenario.finish()
    verdict = scenario.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 10}
    events = list(events_of(read_segments(scenario.store, scenario.sweep)))
    starts = Counter(e.trial for e in events if isinstance(e, Started))
    assert set(starts.values()) == {1}, "nobody died, so nothing was begun twice"
    assert verdict.resumes == ()
