"""A running sweep steered from another process: paused, resumed, cancelled in part, extended,
retried; and a sweep that takes what another one made."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.log.events import DriverEnded, DriverStarted, Preempted
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.log.sweep_status import sweep_status
from orchestrator.queue import Queue
from orchestrator.spec.sweep import load_sweep
from orchestrator.store import Store
from orchestrator.trials.artefacts import RECORD
from orchestrator.trials.desk import Desk
from tests.orchestrator.control.wanted import FAILED, take
from tests.orchestrator.running import RunningSweep

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1200)]

LET_GO_WITHIN_S = 15.0
"""Promised are 5 s, on a machine that has the time."""


def saeq(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of a person on another machine."""
    line = [sys.executable, "-m", "orchestrator.cli", *arguments, "--store", store.url]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def rewritten(sweep: RunningSweep, old: str, new: str) -> None:
    text = sweep.file.read_text()
    assert old in text
    sweep.file.write_text(text.replace(old, new))


def num_running(state: SweepState) -> int:
    return state.counts["running"]


def has_begun(state: SweepState) -> bool:
    """Two trials have gone some way, so that a pause has something to save."""
    return sum(bool(t.history) and t.status == "running" for t in state.trials.values()) >= 2


def began_at(state: SweepState, trial: str) -> int:
    """Tokens that a trial had under its second lease from the beginning; -1 before that."""
    started = state.trials[trial].started
    return started.tokens if started is not None and started.epoch == 2 else -1


def has_come_back(state: SweepState) -> bool:
    return all(began_at(state, trial) >= 0 for trial in ("t0000", "t0001"))


def test_a_sweep_is_steered_while_it_runs(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model, name="steered", tokens="1M", report="20k", members=2)
    rewritten(sweep, "{sampler: grid}", "{sampler: random, trials: 3}")
    with sweep.command() as process:
        sweep.wait_for(has_begun, process, 300)

        assert saeq(sweep.store, "pause", "steered").returncode == 0
        paused_at = time.monotonic()
        sweep.wait_for(lambda state: num_running(state) == 0, process, 60)
        assert time.monotonic() - paused_at < LET_GO_WITHIN_S
        assert sweep_status(3, sweep.state()) == "paused"
        let_go = [e for e in sweep.events() if isinstance(e, Preempted)]
        assert len(let_go) == 2 and all(event.tokens > 0 for event in let_go)

        assert saeq(sweep.store, "resume", "steered").returncode == 0
        came_back = sweep.wait_for(has_come_back, process, 300)
        assert all(began_at(came_back, trial) > 0 for trial in ("t0000", "t0001"))

        running = next(t.id for t in sweep.state().by_number() if t.status == "running")
        assert saeq(sweep.store, "cancel", "steered", running).returncode == 0
        cancelled_at = time.monotonic()
        sweep.wait_for(lambda state: len(state.trials) == 3, process, 100)  # its slot is free
        assert time.monotonic() - cancelled_at < 2 * LET_GO_WITHIN_S
        assert saeq(sweep.store, "extend", "steered", "--trials", "+1").returncode == 0
        assert process.wait(timeout=500) == 0, sweep.output[-3000:]
    state = sweep.state()
    assert len(state.trials) == 4
    assert {t.id for t in state.trials.values() if t.status == "cancelled"} == {running}
    assert state.counts["finished"] == 3
    left = sweep.store.backend.children(sweep.store.layout.checkpoints("steered", running))
    assert left == []


def test_a_failed_trial_is_retried_and_finishes(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model, name="retried", tokens="51200", lrs="1.0e-3")
    spec = load_sweep(sweep.file)
    Queue(sweep.store).submit(spec, sweep.file.read_text())
    log = SweepLog(sweep.store, "retried", LogWriter(sweep.store, "retried"))
    log.append(DriverStarted(host="there", pid=1))
    desk = Desk(sweep.store, "retried", spec, log, max_members=4)
    for ticket in (take(desk), take(desk)):
        desk.on_result(ticket, {**FAILED, "final": True})
    log.append(DriverEnded(driver=desk.leases.holder, reason="nothing left to do here"))
    assert sweep_status(spec.trials, sweep.state()) == "failed"

    retried = saeq(sweep.store, "retry", "retried", "t0001")
    assert retried.stdout.startswith("sweep retried: to be tried again"), retried.stderr
    assert sweep.run(500) == 0, sweep.output[-3000:]
    trials = sweep.state().trials
    assert {t.id: t.status for t in trials.values()} == {"t0000": "failed", "t0001": "finished"}
    assert trials["t0001"].life == 1


def test_a_sweep_takes_what_another_one_made(tiny_model: Path, tmp_path: Path) -> None:
    parent = RunningSweep(tmp_path, tiny_model, name="parent", tokens="51200", lrs="3.0e-3")
    assert parent.run(500) == 0, parent.output[-3000:]
    child = RunningSweep(tmp_path, tiny_model, name="child", tokens="51200", lrs="1.0e-3")
    file = child.file.read_text()

    child.file.write_text(file + "needs: [{sweep: parnet, select: {kind: sae}}]\n")
    refused = saeq(child.store, "submit", str(child.file))
    assert refused.returncode == 2 and "Did you mean 'parent'" in refused.stderr

    child.file.write_text(file + "needs: [{sweep: parent, select: {kind: sae, best: fvu}}]\n")
    assert child.run(500) == 0, child.output[-3000:]
    trials = [t for t in parent.state().trials.values() if t.status == "finished"]
    best = min(trials, key=lambda t: t.metrics["fvu"] or 9.0).artefact
    assert best is not None
    store = child.store
    sha256 = store.files(store.layout.artefact("sae", best)).sha256  # type: ignore[union-attr]
    made = [t.artefact for t in child.state().trials.values()]
    assert len(made) == 2
    for artefact in made:
        record = store.read_json(store.layout.artefact("sae", str(artefact)) + RECORD)
        assert record["lineage"]["parents"] == [{"id": best, "sha256": sha256}]
    shown = json.loads(saeq(store, "show", "child", "--json").stdout)
    assert shown["state"] == "finished"
