"""A store that takes nothing in any more: every trial is let go, and the driver says why."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from orchestrator.log.events import DriverStarted
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.desk import Desk
from orchestrator.tune.adapters import DeskScheduler, DeskSearcher
from orchestrator.tune.trial import PAYLOAD

TEXT = """
name: full
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: {choice: [4, 8, 16]}, lr: 1.0e-3}
search: {sampler: grid}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    store = Store.open(str(tmp_path / "store"))
    spec = parse_sweep(TEXT)
    Queue(store).submit(spec, TEXT)
    log = SweepLog(store, "full", LogWriter(store, "full"))
    log.append(DriverStarted(host="here", pid=1))
    return Desk(store, "full", spec, log, max_members=4)


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        del descriptor, data
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)


def test_trials_are_let_go_and_nothing_is_raised_into_tune(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher, scheduler = DeskSearcher(desk, {}), DeskScheduler(desk)
    configs: dict[str, Any] = {name: searcher.suggest(name) for name in ("first", "second")}
    fill_the_disk(monkeypatch)
    report = {"kind": "failed", "reason": "whatever", "traceback": ""}
    trial = SimpleNamespace(config=configs["first"])
    answer = scheduler.on_trial_result(None, trial, {PAYLOAD: json.dumps(report)})
    assert answer == TrialScheduler.STOP
    searcher.on_trial_complete("first")
    assert len(desk.held) == 1
    assert searcher.suggest("third") is None, "waits for the second trial to come back"
    searcher.on_trial_complete("second", error=True)
    assert searcher.suggest("third") == Searcher.FINISHED
    assert "the disk is full; free space" in desk.unusable


def test_the_trials_are_free_again_when_there_is_space(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = DeskSearcher(desk, {})
    searcher.suggest("first")
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        searcher.on_trial_complete("first", error=True)
    desk.release_all("its driver ended")
    assert desk.log.refresh().trials["t0000"].num_failures == 0, "no fault of the trial"
