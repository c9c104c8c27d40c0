"""What is printed for a trial reaches the store: whole, in order, without secrets, at no risk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.runners.output import RecentOutput, said_for
from orchestrator.store import KeyMissing, Store, StoreError
from orchestrator.trials import output
from orchestrator.trials.output import TrialOutput

WITHIN_S = 60.0
logger = logging.getLogger("orchestrator.test_output")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def _levels_as_before() -> object:
    names = ("orchestrator", "jobs", "steering", "sae")
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def text(store: Store) -> str:
    try:
        return store.backend.get("out.log").decode()
    except KeyMissing:
        return ""


def wait_for(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_log_records_and_others_lines_arrive_in_order_of_time(store: Store) -> None:
    kept = TrialOutput(store, "out.log", every_s=1000).start()
    kept.also_from(lambda: ["2001-01-01T00:00:00Z INFO sae.pack: long ago"])
    logger.info("attached")
    kept.take_last()
    kept.close(WITHIN_S)
    first, second = text(store).splitlines()
    assert first.endswith("long ago")
    assert second.endswith("Z INFO orchestrator.test_output: attached")
    logger.info("after it was closed")
    assert "after" not in text(store)


def test_lines_arrive_while_the_trial_goes_on(store: Store) -> None:
    kept = TrialOutput(store, "out.log", every_s=0.01).start()
    logger.info("one")
    wait_for(lambda: "one" in text(store))
    logger.info("two")
    wait_for(lambda: "two" in text(store))
    kept.close(WITHIN_S)


def test_secrets_of_the_environment_do_not_arrive(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", "a-planted-secret")
    kept = TrialOutput(store, "out.log", every_s=1000).start()
    kept.also_from(lambda: ["got a-planted-secret from the pack"])
    try:
        raise ValueError("bad a-planted-secret")
    except ValueError:
        logger.exception("failed")
    kept.take_last()
    kept.close(WITHIN_S)
    assert "a-planted-secret" not in text(store)
    assert "ValueError: bad <PLANTED_TOKEN>" in text(store)
    assert "got <PLANTED_TOKEN> from the pack" in text(store)


def test_a_store_that_refuses_is_tried_again_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = store.backend.append
    refusals = iter(range(3))

    def refuse_three_times(key: str, data: bytes) -> None:
        for _ in refusals:
            raise StoreError("not now")
        append(key, data)

    monkeypatch.setattr(store.backend, "append", refuse_three_times)
    kept = TrialOutput(store, "out.log", every_s=0.01).start()
    logger.info("one")
    wait_for(lambda: "one" in text(store))
    kept.close(WITHIN_S)
    assert text(store).count("one") == 1


def test_output_is_bounded_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_BYTES", 500)
    kept = TrialOutput(store, "out.log", every_s=1000).start()
    for number in range(100):
        logger.info("line %d", number)
    kept.close(WITHIN_S)
    assert "line 0" in text(store)
    assert "more than 500 bytes were printed" in text(store)
    assert len(text(store)) < 700


def test_each_reader_gets_what_is_for_it_or_for_all() -> None:
    recent = RecentOutput()
    recent.open("a", from_start=True)
    recent.add("for all")
    recent.open("b")
    with said_for("a"):
        recent.emit(logging.LogRecord("n", logging.INFO, "f", 1, "mine", (), None))
    recent.add("for b", owner="b")
    assert [line.rpartition(" ")[2] for line in recent.take("a")] == ["all", "mine"]
    assert recent.take("b") == ["for b"]
    assert recent.take("a") == recent.take("nobody") == []


def test_the_oldest_records_make_room_and_are_missed() -> None:
    recent = RecentOutput(max_records=3)
    recent.add("seen")
    recent.open("a", from_start=True)
    recent.take("a")
    for number in range(5):
        recent.add(str(number))
    assert recent.take("a") == ["(2 log records were left out)", "2", "3", "4"]


def test_a_huge_record_is_cut_in_its_middle() -> None:
    recent = RecentOutput()
    recent.open("a")
    recent.add("x" * 10**6 + "the end")
    (kept,) = recent.take("a")
    assert len(kept) < 40_000
    assert kept.endswith("the end")
    assert "characters left out" in kept
