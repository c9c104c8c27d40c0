"""`saeq logs` finds what was printed, wherever it ran; `saeq gc` shows before it removes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from orchestrator.cli import logs as logs_module
from orchestrator.log.events import Finished
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.cli.test_cli_look import SWEEP
from tests.orchestrator.invented_sweep import InventedSweep, config, sweep_in_all_states


@pytest.fixture
def sweep(tmp_path: Path) -> InventedSweep:
    folder = tmp_path / "store"
    Queue(Store.open(str(folder))).submit(parse_sweep(SWEEP, "demo.yaml"), SWEEP)
    return sweep_in_all_states(folder)


def print_for(sweep: InventedSweep, trial: str, epoch: int, text: str) -> None:
    key = sweep.store.layout.trial_output("demo", trial, epoch)
    sweep.store.backend.append(key, text.encode())


def test_a_trials_lines_of_all_its_leases_come_with_headlines(
    saeq: Saeq, sweep: InventedSweep
) -> None:
    print_for(sweep, "t0000", 1, "one\ntwo\n")
    print_for(sweep, "t0000", 2, "three\n")
    everything = "==> t0000, lease 1 <==\none\ntwo\n==> t0000, lease 2 <==\nthree\n"
    assert saeq("logs", "demo", "t0000") == (0, everything, "")
    assert saeq("logs", "demo/t0000")[1] == everything
    assert saeq("logs", "demo", "t0000", "--epoch", "2")[1] == "==> t0000, lease 2 <==\nthree\n"
    assert saeq("logs", "demo", "t0000", "--lines", "1")[1] == "three\n"
    assert saeq("logs", "demo", "t0000", "-n", "0")[1] == ""


def test_a_failures_traceback_is_part_of_it_and_comes_once(
    saeq: Saeq, sweep: InventedSweep
) -> None:
    failed = next(t for t in sweep.watched().log.state.by_number() if t.status == "failed")
    last = failed.traceback.strip().splitlines()[-1]
    out = saeq("logs", "demo", failed.id)[1]
    assert out.startswith("==> its last failure, from the log <==\n")
    assert out.count(last) == 1
    print_for(sweep, failed.id, 1, f"failed: {failed.traceback}\n")
    out = saeq("logs", "demo", failed.id)[1]
    assert out.count(last) == 1
    assert "from the log" not in out


def test_where_there_is_nothing_it_says_why(saeq: Saeq, sweep: InventedSweep) -> None:
    trial = sweep.suggest(90, config(0))
    running = next(t for t in sweep.watched().log.state.by_number() if t.status == "running")
    ended = next(t for t in sweep.watched().log.state.by_number() if t.status == "finished")
    assert saeq("logs", "demo", running.id)[2] == (
        f"nothing was printed for {running.id} so far; its lines come a few seconds late\n"
    )
    assert "which ended: finished" in saeq("logs", "demo", ended.id)[2]
    assert "its leases go up to 1" in saeq("logs", "demo", running.id, "--epoch", "7")[2]
    assert trial in {t.id for t in sweep.watched().log.state.by_number()}


def test_a_trial_that_has_not_started_is_said_to(saeq: Saeq, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    Queue(store).submit(parse_sweep(SWEEP, "demo.yaml"), SWEEP)
    sweep = InventedSweep.under(tmp_path / "store")
    sweep.begin()
    from orchestrator.log.events import Suggested

    sweep.say(Suggested(trial="t0003", number=3, config=config(3), total_tokens=64_000))
    code, out, err = saeq("logs", "demo", "t0003")
    assert (code, out, err) == (0, "", "t0003 has not started yet\n")


def test_the_driver_that_holds_a_trial_is_found(saeq: Saeq, sweep: InventedSweep) -> None:
    trial = next(iter(sweep.watched().log.state.by_number()))
    output = sweep.store.layout.output("demo")
    sweep.store.backend.append(f"{output}{trial.holder}.log", b"hers\n")
    sweep.store.backend.append(f"{output}driver-other.log", b"another's\n")
    out = saeq("logs", "demo", trial.id, "--driver")[1]
    assert out == f"==> {trial.holder}.log <==\nhers\n"
    assert "another's" in saeq("logs", "demo", "--driver")[1]


def test_an_epoch_without_a_trial_is_refused(saeq: Saeq, sweep: InventedSweep) -> None:
    assert sweep.facts.id == "demo"
    code, _, err = saeq("logs", "demo", "--epoch", "1")
    assert code == 2
    assert "name a trial" in err


def test_following_ends_with_the_trial_and_brings_its_last_lines(
    saeq: Saeq, sweep: InventedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "POLL_S", 0.01)
    monkeypatch.setattr(logs_module, "LAST_LINES_WITHIN_S", 0.5)
    running = next(t for t in sweep.watched().log.state.by_number() if t.status == "running")
    print_for(sweep, running.id, 1, "begins\n")

    def go_on() -> None:
        print_for(sweep, running.id, 1, "goes on\n")
        sweep.say(
            Finished(trial=running.id, epoch=running.epoch, artefact="a", metrics={}, tokens=64_000)
        )
        print_for(sweep, running.id, 1, "the last line\n")

    timer = threading.Timer(0.3, go_on)
    timer.start()
    code, out, _ = saeq("logs", "demo", running.id, "--follow")
    timer.join()
    assert code == 0
    assert out == f"==> {running.id}, lease 1 <==\nbegins\ngoes on\nthe last line\n"


def test_gc_shows_first_and_removes_when_told_to(saeq: Saeq, sweep: InventedSweep) -> None:
    assert saeq("gc")[1] == "nothing to remove: everything in this store is referred to\n"
    ended = next(t for t in sweep.watched().log.state.by_number() if t.ended)
    key = f"{sweep.store.layout.checkpoint('demo', ended.id, 8000, 1)}state"
    sweep.store.backend.put(key, b"x" * 2048)
    code, out, _ = saeq("gc")
    assert code == 0
    assert "checkpoints of ended trials" in out
    assert "nothing was removed; `saeq gc --yes` removes it" in out
    assert sweep.store.backend.exists(key)
    (row,) = json.loads(saeq("gc", "--json")[1])
    assert row == {
        "kind": "checkpoints of ended trials",
        "place": key.removesuffix("state"),
        "bytes": 2048,
        "removed": False,
    }
    assert saeq("gc", "--yes")[1].endswith("removed\n")
    assert not sweep.store.backend.exists(key)
    assert "nothing to remove" in saeq("gc", "--yes")[1]
