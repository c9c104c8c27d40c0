"""A running trial is asked back through the store: it checkpoints, lets go, and goes on later."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.log.events import Preempted, Started
from orchestrator.log.state import SweepState
from tests.orchestrator.running import RunningSweep

pytestmark = pytest.mark.slow


def test_a_trial_asked_back_saves_lets_go_and_goes_on_from_there(
    tiny_model: Path, tmp_path: Path
) -> None:
    sweep = RunningSweep(tmp_path, tiny_model, lrs="1.0e-3", members=2, checkpoint_seconds=600)
    with sweep.command() as process:
        state = sweep.wait_for(_both_report, process, timeout_s=90)
        trial = state.trials["t0000"]
        key = sweep.store.layout.give_back(sweep.id, trial.id, trial.epoch)
        sweep.store.write_json(key, {"reason": "paused by a test", "save": True})
        assert process.wait(timeout=240) == 0, sweep.output[-3000:]
    events = sweep.events()
    (preempted,) = [e for e in events if isinstance(e, Preempted)]
    assert (preempted.trial, preempted.reason) == ("t0000", "paused by a test")
    assert preempted.tokens > 0, "it saved before it let go, long before its next checkpoint"
    (again,) = [e for e in events if isinstance(e, Started) and e.epoch > 1]
    assert again.tokens == preempted.tokens
    assert {t.status for t in sweep.state().trials.values()} == {"finished"}


def _both_report(state: SweepState) -> bool:
    return len(state.trials) == 2 and all(t.history for t in state.trials.values())
