"""What is done about a driver that dies: again after a pause, parked, or tried again later."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from orchestrator.log.events import Closed, Prioritised
from orchestrator.log.sweep_log import LogWriter
from orchestrator.queue import Queue, QueuedSweep
from orchestrator.serving.driver_process import DriverOrder
from orchestrator.serving.roster import Roster
from orchestrator.serving.sweep_worker import SweepWorker
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.tune.exit_codes import EXIT_UNUSABLE
from tests.orchestrator.serving.some_ray import SomeRay

TEXT = """
name: sick
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: {choice: [4, 8]}, lr: 1.0e-3}
search: {sampler: grid}
"""


class Setting:
    """A sweep, its worker with a clock of ours, and drivers that are shell scripts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store.open(str(folder / "store"))
        self.queued, _ = Queue(self.store).submit(parse_sweep(TEXT), TEXT)
        self.ray, self.now, self.said = SomeRay(), 0.0, list[str]()
        self._script = folder / "driver"
        monkeypatch.setattr(sys, "executable", str(self._script))
        self.worker = SweepWorker(
            self.store, self.queued, self.ray, self.said.append, clock=lambda: self.now
        )
        self.worker.look()

    def drive(self, script: str, wait: bool = True) -> None:
        """Start a driver that is this script; to its end, unless told otherwise."""
        self._script.write_text(f"#!/bin/sh\n{script}\n")
        self._script.chmod(0o755)
        assert self.worker.may_start
        self.worker.start(DriverOrder("127.0.0.1:1", slots=2))
        deadline = time.monotonic() + 60
        while wait and self.worker.phase == "driving":
            assert time.monotonic() < deadline
            self.worker.tick()
            time.sleep(0.01)

    def reasons(self) -> list[str]:
        return [ended.reason for ended in self.worker.log.refresh().ended_drivers.values()]


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(tmp_path, monkeypatch)


def test_a_driver_that_dies_is_replaced_after_a_pause_that_grows(setting: Setting) -> None:
    pauses: list[float] = []
    for _ in range(3):
        setting.drive("echo out of luck; exit 7")
        assert not setting.worker.may_start
        before = setting.now
        while not setting.worker.may_start:
            setting.now += 0.1
        pauses.append(setting.now - before)
    assert 0.4 < pauses[0] < 1.3 < pauses[2] < 4.3
    assert "exit code 7" in setting.said[0] and "out of luck" in setting.said[0]
    assert setting.reasons() == ["exit code 7"] * 3


def test_five_deaths_in_a_row_park_a_sweep_until_somebody_gives_an_order(
    setting: Setting,
) -> None:
    for _ in range(5):
        setting.drive("echo no such thing; kill -KILL $$")
        setting.now += 100.0
    assert setting.worker.phase == "parked" and not setting.worker.is_alive
    assert "no such thing" in setting.worker.reason
    assert "died 5 times in a row" in setting.reasons()[-1], "`saeq ls` shows it"
    setting.worker.look()
    assert setting.worker.phase == "parked"
    order = Prioritised(by="me", order=1, priority=3)
    LogWriter(setting.store, "sick", "control").append(order)
    setting.worker.look()
    assert setting.worker.may_start and setting.worker.priority == 3


def test_one_that_cannot_run_here_is_tried_again_later_and_ever_later(setting: Setting) -> None:
    script = f"echo no such model; exit {EXIT_UNUSABLE}"
    setting.drive(script)
    assert (setting.worker.phase, setting.worker.reason) == ("unusable", "no such model")
    setting.now += 59.0
    assert not setting.worker.may_start
    setting.now += 2.0
    setting.worker.look()
    setting.drive(script)
    setting.now += 100.0
    setting.worker.look()
    assert not setting.worker.may_start
    setting.now += 30.0
    assert setting.worker.may_start


def test_a_driver_hears_each_change_of_its_allowance(setting: Setting, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    setting.drive(f"cat > {heard}", wait=False)
    for slots in (2, 5, 5, None):
        setting.worker.allow(slots)
    deadline = time.monotonic() + 60
    while not heard.exists() or heard.read_text().count("\n") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    setting.worker.stop()
    assert [json.loads(line) for line in heard.read_text().splitlines()] == [
        {"slots": 5},
        {"slots": None},
    ]


def test_what_a_driver_printed_is_in_the_store_when_it_ended(setting: Setting) -> None:
    setting.drive("echo first; echo second; exit 1")
    (name,) = setting.store.backend.children(setting.store.layout.output("sick"))
    data = setting.store.backend.get(setting.store.layout.output("sick") + name)
    assert data == b"first\nsecond\n"


def test_a_driver_whose_ray_is_gone_is_ended_and_that_is_not_held_against_it(
    setting: Setting,
) -> None:
    setting.drive("sleep 600", wait=False)
    setting.ray.address, setting.ray.problem = None, "the cluster is gone"
    setting.worker.tick()
    assert setting.worker.phase == "waiting" and setting.worker.may_start
    assert "the cluster is gone" in setting.said[-1]
    assert setting.reasons() == ["its Ray is gone"]


def test_a_sweep_that_is_over_is_set_aside_until_something_is_written_to_it(
    setting: Setting,
) -> None:
    said: list[tuple[str, str]] = []
    made: list[SweepWorker] = []

    def new_worker(queued: QueuedSweep) -> SweepWorker:
        made.append(SweepWorker(setting.store, queued, setting.ray))
        return made[-1]

    roster = Roster(setting.store, new_worker, lambda sweep, what: said.append((sweep, what)))
    roster.look()
    assert [worker.queued.id for worker in roster.workers] == ["sick"]
    LogWriter(setting.store, "sick", "control").append(Closed(reason="enough"))
    roster.look()
    assert roster.workers == [] and said == [("sick", "over: failed")]
    roster.look()
    assert len(made) == 1, "its log is not read again"
    LogWriter(setting.store, "sick", "control").append(Prioritised(by="me", order=1, priority=1))
    roster.look()
    assert len(made) == 2
