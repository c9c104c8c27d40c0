"""When a driver is worth starting: what others hold is left alone until they are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.log.events import DriverEnded, DriverStarted, EventBase, Leased, Suggested
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.queue import Queue
from orchestrator.serving.free_work import FreeWork
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.leases import Leases

TEXT = """
name: free
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: {choice: [4, 8]}, lr: 1.0e-3}
search: {sampler: grid}
"""
GONE = "driver-gone"


class Setting:
    """A sweep of two trials in a store, and a supervisor with a clock of ours."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(str(folder / "store"))
        self.queued, _ = Queue(self.store).submit(parse_sweep(TEXT), TEXT)
        self.now = 0.0
        writer = LogWriter(self.store, "free", "supervisor")
        self.log = SweepLog(self.store, "free", writer)
        leases = Leases(self.store, "free", writer.id, clock=lambda: self.now)
        self.free_work = FreeWork(self.store, self.queued, self.log, leases)

    def drove(self, *events: EventBase) -> None:
        """A driver that ran before says these events and is never heard of again."""
        LogWriter(self.store, "free", writer_id=GONE).append(*events)

    def lease(self, trial: str) -> None:
        key = self.store.layout.lease("free", trial, 1)
        self.store.create_json(key, {"holder": GONE, "epoch": 1})


def suggested(number: int) -> Suggested:
    config = {"architecture": "topk", "d_sae": 64, "k": 4 * (number + 1), "lr": 1e-3}
    return Suggested(trial=f"t{number:04d}", number=number, config=config, total_tokens=90_000)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_a_configuration_that_nobody_has_tried_is_free_work(setting: Setting) -> None:
    assert setting.free_work.is_there()
    setting.drove(suggested(0))
    assert setting.free_work.is_there()


def test_trials_of_a_machine_that_was_switched_off_become_free(setting: Setting) -> None:
    setting.drove(DriverStarted(host="there", pid=1))
    for number in (0, 1):
        setting.lease(f"t{number:04d}")
    writer = LogWriter(setting.store, "free", writer_id=f"{GONE}-2")
    writer.append(suggested(0), suggested(1))
    assert not setting.free_work.is_there()
    setting.now = 19.0
    assert not setting.free_work.is_there()
    setting.now = 21.0
    assert setting.free_work.is_there()
    assert setting.log.state.ended_drivers[GONE].reason == "silent for 20 s"


def test_a_driver_that_beats_keeps_its_trials(setting: Setting) -> None:
    setting.drove(
        DriverStarted(host="there", pid=1),
        suggested(0),
        Leased(trial="t0000", epoch=1),
        suggested(1),
        Leased(trial="t0001", epoch=1),
    )
    for beat in range(5):
        heartbeat = setting.store.layout.heartbeat("free", GONE)
        setting.store.write_json(heartbeat, {"beat": beat, "at": 0.0})
        setting.now += 15.0
        assert not setting.free_work.is_there()


def test_trials_of_a_driver_that_is_known_to_have_ended_are_free_at_once(setting: Setting) -> None:
    setting.drove(suggested(0), Leased(trial="t0000", epoch=1))
    setting.log.append(suggested(1), DriverEnded(driver=GONE, reason="killed by SIGKILL"))
    assert setting.free_work.is_there()


def test_a_trial_whose_line_in_the_log_was_lost_is_announced_again(setting: Setting) -> None:
    config = dict(suggested(0).config)
    key = setting.store.layout.claim("free", "t0000")
    setting.store.create_json(key, {"number": 0, "config": config})
    setting.drove(Leased(trial="t0000", epoch=1))
    setting.free_work.restore_suggestions()
    trial = setting.log.refresh().trials["t0000"]
    assert (trial.number, trial.config, trial.total_tokens) == (0, config, 90_000)
