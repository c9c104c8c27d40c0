from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.log.events import DriverStarted
from orchestrator.log.sweep_log import LogWriter
from orchestrator.nodes.stages import Mark, Stage
from orchestrator.queue import Queue
from orchestrator.slurm.after_serve import num_fruitless, why_no_work
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.leases import Heartbeat
from tests.orchestrator.running import SWEEP


def _start(*stages: tuple[Stage, str]) -> list[Mark]:
    return [Mark("allocated", 1.0), *(Mark(stage, 2.0, "n1", detail) for stage, detail in stages)]


def test_starts_that_met_the_limit_before_a_report_are_counted_from_the_last() -> None:
    limit = _start(("lease", ""), ("ended", "requeued: time limit"))
    preempted = _start(("ended", "requeued: preempted"))
    fruitful = _start(("lease", ""), ("report", ""), ("ended", "requeued: time limit"))
    now = _start(("lease", ""))
    assert num_fruitless([]) == 0
    assert num_fruitless(now) == 1
    assert num_fruitless([*limit, *limit, *now]) == 3
    assert num_fruitless([*limit, *preempted, *now]) == 2, "that was nobody's fault"
    assert num_fruitless([*limit, *fruitful, *now]) == 1
    assert num_fruitless(fruitful) == 0


class Clock:
    """Time passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def _submit(store: Store) -> str:
    text = SWEEP.format(
        name="tiny", model="m", tokens="500k", lrs="1.0e-3", report="25k", members=4,
        checkpoint_seconds=1, early_stop="{scheduler: none}",
    )  # fmt: skip
    return Queue(store).submit(parse_sweep(text), text)[0].id


def test_an_empty_queue_has_no_work(store: Store) -> None:
    assert why_no_work(store) == "the queue is empty"


def test_a_sweep_that_nobody_has_begun_is_work(store: Store) -> None:
    _submit(store)
    assert why_no_work(store) == ""


def test_what_others_hold_is_no_work_for_a_job_that_comes_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, clock = _submit(store), Clock()
    LogWriter(store, sweep).append(DriverStarted(host="n2", pid=1))
    monkeypatch.setattr("orchestrator.slurm.demand.Demand.num_trials", lambda _: 0)
    with Heartbeat(store, sweep, "driver-x"):
        assert why_no_work(store, clock, clock.sleep) == "others hold all that is left"
    assert clock.now_s >= 20.0, "a holder that died would have been noticed"
