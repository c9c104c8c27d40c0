"""`saeq serve` as a user runs it: real processes, a real Ray, a tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.log.events import Finished, Prioritised, Started
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogWriter
from orchestrator.store import Store
from tests.orchestrator.running import RunningServe, RunningSweep, process_of

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1200)]

PATIENCE_S = 300.0
"""For each step: these machines are shared, and starting Ray alone has taken half a minute."""


def some_checkpointed(state: SweepState) -> bool:
    running = [t for t in state.trials.values() if t.status == "running"]
    return len(running) > 1 and all(t.checkpoint_tokens > 0 for t in running)


def assert_whole(sweep: RunningSweep, num_trials: int) -> None:
    """Every trial ended once, however many worked on it."""
    statuses = Counter(t.status for t in sweep.state().trials.values())
    assert statuses == {"finished": num_trials}
    ends = Counter(e.trial for e in sweep.events() if isinstance(e, Finished))
    assert set(ends.values()) == {1}


def starts(sweep: RunningSweep) -> list[Started]:
    return sorted((e for e in sweep.events() if isinstance(e, Started)), key=lambda e: e.at)


def test_an_empty_queue_is_left_at_once_and_time_ends_a_longer_stay(tmp_path: Path) -> None:
    serve = RunningServe(Store.open(str(tmp_path / "store")), tmp_path / "serve.txt")
    with serve.command("--until-idle") as process:
        assert process.wait(timeout=60) == 0, serve.output
    assert "nothing is left that can be worked on" in serve.output
    with serve.command("--for", "2s") as process:
        assert process.wait(timeout=60) == 0, serve.output
    assert "no sweep waits" in serve.output and "time is over" in serve.output
    line = [sys.executable, "-m", "orchestrator.cli", "serve", "--for", "soon"]
    refused = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "write 60, 30s, 90m" in refused.stderr


def test_a_small_sweep_gets_its_slot_beside_a_backlog(tiny_model: Path, tmp_path: Path) -> None:
    big = RunningSweep(
        tmp_path,
        tiny_model,
        name="big",
        tokens="200k",
        lrs="1.0e-3, 2.0e-3, 3.0e-3, 4.0e-3, 5.0e-3, 6.0e-3",
        members=2,
    )
    big.submit()
    serve = RunningServe(big.store, tmp_path / "serve.txt")
    with serve.command("--until-idle") as process:
        big.wait_for(lambda state: state.counts["running"] == 2, process, PATIENCE_S)
        small = RunningSweep(
            tmp_path,
            tiny_model,
            name="small",
            tokens="20k",
            lrs="1.0e-3",
            report="5k",
            members=2,
        )
        small.submit()
        assert process.wait(timeout=2 * PATIENCE_S) == 0, serve.output[-3000:]
    assert_whole(big, 12)
    assert_whole(small, 2)
    driven_from = next(iter(small.state().drivers.values())).started.at
    first = starts(small)[0].at
    between = [e for e in starts(big) if driven_from < e.at < first]
    assert len(between) <= 3, "within one trial length of the backlog"
    assert [e for e in starts(big) if e.at > first], "not only after the backlog"
    assert "big: over: finished" in serve.output and "small: over: finished" in serve.output


def test_a_killed_driver_and_a_killed_ray_are_replaced(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model, tokens="500k")
    sweep.submit()
    serve = RunningServe(sweep.store, tmp_path / "serve.txt")
    with serve.command("--until-idle") as process:
        state = sweep.wait_for(some_checkpointed, process, PATIENCE_S)
        (first,) = state.drivers.values()
        os.kill(first.started.pid, signal.SIGKILL)
        serve.wait_for_line("its driver died (killed by SIGKILL", process)
        sweep.wait_for(
            lambda state: (
                some_checkpointed(state)
                and all(t.holder != first.id for t in state.trials.values())
                and any(t.epoch > 1 and t.status == "running" for t in state.trials.values())
            ),
            process,
            PATIENCE_S,
        )
        os.kill(process_of("raylet/raylet", below=process.pid), signal.SIGKILL)
        serve.wait_for_line("the local Ray died", process)
        assert process.wait(timeout=2 * PATIENCE_S) == 0, serve.output[-3000:]
    assert_whole(sweep, 4)
    assert len(sweep.state().drivers) >= 3
    assert not list(Path("/tmp").glob(f"saeq-host-{process.pid}-*"))


def test_the_urgent_one_first_and_sigterm_gives_all_back(tiny_model: Path, tmp_path: Path) -> None:
    RunningSweep(tmp_path, tiny_model, name="other").submit()
    urgent = RunningSweep(tmp_path, tiny_model, name="urgent", tokens="20M")
    urgent.submit()
    order = Prioritised(by="me", order=1, priority=5)
    LogWriter(urgent.store, "urgent", "control").append(order)
    serve = RunningServe(urgent.store, tmp_path / "serve.txt")
    with serve.command("--sweeps", "1") as process:
        urgent.wait_for(some_checkpointed, process, PATIENCE_S)
        assert "other: waits for its turn: 1 sweeps" in serve.output
        assert "urgent: taken (priority 5" in serve.output
        assert urgent.store.backend.children(urgent.store.layout.nodes)
        before = urgent.state()
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0, serve.output[-3000:]
        assert time.monotonic() - asked < 60.0
    after = urgent.state()
    assert after.counts["running"] == 0, "no lease is held"
    assert set(after.ended_drivers) >= set(after.drivers)
    for trial in after.trials.values():
        assert trial.checkpoint_tokens >= before.trials[trial.id].checkpoint_tokens
    assert urgent.store.backend.children(urgent.store.layout.nodes) == []


def test_two_servers_work_one_sweep_off(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(
        tmp_path,
        tiny_model,
        tokens="500k",
        lrs="1.0e-3, 2.0e-3, 3.0e-3, 4.0e-3",
        members=2,
    )
    sweep.submit()
    serves = [RunningServe(sweep.store, tmp_path / f"serve-{n}.txt") for n in (1, 2)]
    with ExitStack() as undo:
        processes = [undo.enter_context(serve.command("--until-idle")) for serve in serves]
        for process, serve in zip(processes, serves, strict=True):
            assert process.wait(timeout=2 * PATIENCE_S) == 0, serve.output[-3000:]
    assert_whole(sweep, 8)
    state = sweep.state()
    assert len(state.drivers) >= 2
    assert {t.epoch for t in state.trials.values()} == {1}, "no trial was run by two"
    assert len({t.holder for t in state.trials.values()}) >= 2, "both had a part in it"
