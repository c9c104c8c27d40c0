"""A `saeq serve` or `saeq run` whose machine, or whose time, is about to end."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.log.events import Failed, Preempted, Started
from orchestrator.log.state import SweepState
from orchestrator.nodes.identity import this_host
from orchestrator.trials.time_left import DRIVER_START_S, SAVE_S, start_seconds
from tests.orchestrator.running import RunningServe, RunningSweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

PATIENCE_S = 300.0


@pytest.fixture
def sweep(tiny_model: Path, tmp_path: Path) -> Iterator[RunningSweep]:
    """Two trials that take longer than any test."""
    yield RunningSweep(
        tmp_path, tiny_model, lrs="1.0e-3", tokens="200M", members=2, checkpoint_seconds=600
    )


def both_report(state: SweepState) -> bool:
    trials = state.trials.values()
    return len(trials) == 2 and all(t.last_report_at > t.leased_at > 0 for t in trials)


def assert_given_back(sweep: RunningSweep) -> None:
    state = sweep.state()
    assert {t.status for t in state.trials.values()} == {"queued"}
    assert all(t.checkpoint_tokens > 0 for t in state.trials.values())
    assert not [e for e in sweep.events() if isinstance(e, Failed)]
    assert not any(e.process_died for e in sweep.events() if isinstance(e, Preempted))


def test_a_serve_leaves_a_machine_that_goes_and_begins_nothing_it_cannot_save(
    sweep: RunningSweep, tmp_path: Path
) -> None:
    sweep.submit()
    serve, ends_at = RunningServe(sweep.store, tmp_path / "serve.txt"), tmp_path / "ends-at"
    with serve.command("--for", "45s") as process:
        assert process.wait(timeout=PATIENCE_S) == 0, serve.output
    assert "s are left, and starting a trial and saving what it did takes 60 s" in serve.output
    assert "ends early: nothing runs, and nothing may begin any more" in serve.output
    assert not sweep.state().trials

    told = f"command:cat {shlex.quote(str(ends_at))} 2>/dev/null || true"
    with serve.command("--notices", told) as process:
        sweep.wait_for(both_report, process, PATIENCE_S)
        ends_at.write_text("100000")
        serve.wait_for_line("notice of the command: noted, working on", process)
        ends_at.write_text("90")
        assert process.wait(timeout=PATIENCE_S) == 0, serve.output
    assert "s are left: trials are being checkpointed and given back" in serve.output
    assert_given_back(sweep)

    needed_s = start_seconds(sweep.state(), this_host()) + SAVE_S + DRIVER_START_S
    with serve.command("--for", f"{needed_s + 45:.0f}s", "--notices", "none") as process:
        assert process.wait(timeout=PATIENCE_S) == 0, serve.output
    assert "time is over: trials are being checkpointed and given back" in serve.output
    assert_given_back(sweep)
    starts = [e for e in sweep.events() if isinstance(e, Started)]
    assert len(starts) == 4 and all(e.tokens > 0 for e in starts if e.epoch > 1)


def test_a_run_leaves_a_machine_that_goes_and_can_be_gone_on_with(
    sweep: RunningSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = tmp_path / "ends-at"
    monkeypatch.setenv("SAEQ_NOTICES", f"command:cat {shlex.quote(str(ends_at))} || true")
    with sweep.command() as process:
        sweep.wait_for(both_report, process, PATIENCE_S)
        ends_at.write_text("60")
        assert process.wait(timeout=PATIENCE_S) == 130, sweep.output
    assert "s are left: trials are being checkpointed" in sweep.output
    assert_given_back(sweep)


def test_a_moment_that_is_none_is_refused() -> None:
    line = ["--until", "soon"], ["--notices", "awss"]
    for options in line:
        command = [sys.executable, "-m", "orchestrator.cli", "serve", *options]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert refused.returncode == 2 and options[1] in refused.stderr
