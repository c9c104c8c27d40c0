"""What makes a trial's actor let its trial go: an order in the store, or a later lease."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.store import Store, StoreError
from orchestrator.trials.recall import Recall, RecallWatch, look_for_recall


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def test_a_trial_that_nobody_asked_back_goes_on(store: Store) -> None:
    store.write_json(store.layout.give_back("s", "t0000", 1), {"reason": "of an old epoch"})
    assert look_for_recall(store, "s", "t0000", 2) is None


def test_an_order_carries_its_reason_and_whether_to_save(store: Store) -> None:
    key = store.layout.give_back("s", "t0000", 2)
    store.write_json(key, {"reason": "paused by ann@lab", "save": True})
    assert look_for_recall(store, "s", "t0000", 2) == Recall("paused by ann@lab", save=True)
    store.write_json(key, {"reason": "cancelled", "save": False})
    assert look_for_recall(store, "s", "t0000", 2) == Recall("cancelled", save=False)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"reason": 3}', b"\xff"])
def test_an_order_that_cannot_be_read_is_still_an_order(store: Store, damage: bytes) -> None:
    store.backend.put(store.layout.give_back("s", "t0000", 1), damage)
    recall = look_for_recall(store, "s", "t0000", 1)
    assert recall is not None
    assert recall.save
    assert recall.reason


def test_a_later_lease_outranks_an_order_and_forbids_writing(store: Store) -> None:
    store.write_json(store.layout.give_back("s", "t0000", 1), {"reason": "r", "save": True})
    store.create_json(store.layout.lease("s", "t0000", 2), {"holder": "other", "epoch": 2})
    recall = look_for_recall(store, "s", "t0000", 1)
    assert recall is not None
    assert recall.lost
    assert not recall.save


def test_the_watch_finds_an_order_that_comes_later(store: Store) -> None:
    watch = RecallWatch(store, "s", "t0000", 1, every_s=0.01).start()
    assert watch.recall is None
    store.write_json(store.layout.give_back("s", "t0000", 1), {"reason": "paused", "save": True})
    assert _found(watch) == Recall("paused", save=True)


def test_the_watch_outlives_a_store_that_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exists = store.backend.exists
    answers = iter([StoreError("the network is gone"), StoreError("the network is gone")])

    def sometimes(key: str) -> bool:
        for error in answers:
            raise error
        return exists(key)

    monkeypatch.setattr(store.backend, "exists", sometimes)
    store.write_json(store.layout.give_back("s", "t0000", 1), {"reason": "paused", "save": True})
    watch = RecallWatch(store, "s", "t0000", 1, every_s=0.01).start()
    assert _found(watch) == Recall("paused", save=True)
    assert "the network is gone" in caplog.text


def _found(watch: RecallWatch) -> Recall | None:
    deadline = time.monotonic() + 20
    while watch.recall is None and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.stop()
    return watch.recall
