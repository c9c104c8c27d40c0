"""A real `saeq serve` on a machine where packs die: it keeps itself out, and gives all back."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.log.events import Started
from orchestrator.nodes.host_watch import ONE_EVENT_S
from orchestrator.nodes.quarantine import MAX_FAST_FAILURES, host_standing
from orchestrator.nodes.records import read_nodes
from tests.orchestrator.running import RunningServe, RunningSweep

pytestmark = [pytest.mark.storm, pytest.mark.timeout(900)]

PATIENCE_S = 600.0


def kill_packs(sweep: RunningSweep, serve: subprocess.Popen[bytes]) -> int:
    """Kill each pack as soon as trials have started in it, but not faster than counts as one."""
    killed: dict[int, float] = {}
    deadline = time.monotonic() + PATIENCE_S
    while serve.poll() is None and time.monotonic() < deadline:
        started = {e.pid for e in sweep.events() if isinstance(e, Started)}
        last = max(killed.values(), default=0.0)
        for pid in started - set(killed):
            if time.monotonic() - last > ONE_EVENT_S + 2.0 and len(killed) < MAX_FAST_FAILURES:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed[pid] = last = time.monotonic()
        time.sleep(0.2)
    return len(killed)


def test_a_machine_on_which_packs_die_keeps_itself_out(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_NODE_HOST", "box")
    sweep = RunningSweep(tmp_path, tiny_model, tokens="50M", report="25M")  # nothing is reported
    sweep.submit()
    serve = RunningServe(sweep.store, tmp_path / "serve.txt")
    with serve.command() as process:
        num_killed = kill_packs(sweep, process)
        assert process.wait(timeout=60) == 1, serve.output[-3000:]
    assert num_killed == MAX_FAST_FAILURES
    assert serve.output.count("held against host box: ") == MAX_FAST_FAILURES
    assert "saeq: host box is in quarantine since" in serve.output
    assert "`saeq nodes --release box`" in serve.output
    assert host_standing(sweep.store, "box").is_kept_out
    (left,) = read_nodes(sweep.store)
    assert left.failure is not None and "3 fast failures" in left.failure.why
    assert [mark.stage for mark in left.marks] == [
        "environment",
        "probe",
        "ray",
        "lease",
        "ended",
    ]
    state = sweep.state()
    assert state.counts == {"queued": 4}, "no trial is lost for that, and none has failed"
