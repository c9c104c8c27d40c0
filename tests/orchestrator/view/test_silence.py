"""A sweep whose driver was killed says so: its log alone would call it running for ever."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.log.events import DriverStarted, Leased, Suggested
from orchestrator.log.sweep_log import LogWriter
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.view.facts import WatchedSweep
from orchestrator.view.listing import sweep_row
from orchestrator.view.silence import Silence

SWEEP = """
name: widths
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: 4, lr: 1.0e-3}
search: {sampler: grid}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A sweep whose only trial runs, under two drivers."""
    store = Store.open(str(tmp_path / "store"))
    Queue(store).submit(parse_sweep(SWEEP), SWEEP)
    for name in ("one", "two"):
        writer = LogWriter(store, "widths", writer_id=f"driver-{name}")
        writer.append(DriverStarted(host="h", pid=1))
    writer.append(
        Suggested(trial="t0000", number=0, config={"k": 4}, total_tokens=90_000),
        Leased(trial="t0000", epoch=1),
    )
    return store


def why(store: Store) -> str:
    watched = WatchedSweep.open(store, "widths")
    return sweep_row(watched.facts, watched.log.state, time.time()).why


def beat(store: Store, driver: str, ago_s: float) -> None:
    key = store.layout.heartbeat("widths", driver)
    store.write_json(key, {"beat": 1, "at": time.time() - ago_s})


def test_drivers_that_are_silent_are_named_with_the_way_out(store: Store) -> None:
    beat(store, "driver-one", 7200)
    beat(store, "driver-two", 7200)
    assert why(store).startswith("no sign of life of its 2 drivers for 2h")
    assert "saeq serve" in why(store)


def test_one_that_beats_is_enough(store: Store) -> None:
    beat(store, "driver-one", 7200)
    beat(store, "driver-two", 3)
    assert why(store) == ""


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"at": "noon"}'])
def test_what_cannot_be_read_is_not_silence(store: Store, damage: bytes) -> None:
    beat(store, "driver-one", 7200)
    assert why(store) == ""  # the other one has no heartbeat at all
    store.backend.put(store.layout.heartbeat("widths", "driver-two"), damage)
    assert why(store) == ""


def test_a_live_view_asks_every_few_seconds_only(store: Store) -> None:
    now = [time.time()]
    silence = Silence(store, "widths", clock=lambda: now[0])
    beat(store, "driver-one", 100)
    first = silence.since_s(["driver-one"])
    assert first is not None
    assert first == pytest.approx(100, abs=5)
    beat(store, "driver-one", 0)
    now[0] += 1
    assert silence.since_s(["driver-one"]) == pytest.approx(first + 1)
    now[0] += 10
    later = silence.since_s(["driver-one"])
    assert later is not None
    assert later < 60
    assert silence.since_s([]) is None
