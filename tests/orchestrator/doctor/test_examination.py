"""Checks run side by side; one that hangs or breaks hides nothing of what the others found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from orchestrator.doctor.base import Check, Finding
from orchestrator.doctor.examination import examine, impatient, worst
from orchestrator.store import Store, Unreachable
from orchestrator.store.s3 import S3Backend


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def _forget_checks_of_tests() -> Iterator[None]:
    before = dict(Check.by_name)
    yield
    Check.by_name.clear()
    Check.by_name.update(before)


def check_that(name: str, looks: Iterable[Finding], rank: int = 100) -> type[Check]:
    class OfATest(Check):
        order = rank

        def look(self, store: Store) -> Iterable[Finding]:
            del store
            yield from looks

    OfATest.name = name
    return OfATest


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of tests are not registered: their names come later."""
    monkeypatch.setattr(Check, "__init_subclass__", classmethod(lambda _: None))


def raising(error: Exception) -> Iterator[Finding]:
    yield Finding("ok", "so far so good")
    raise error


def test_they_come_in_order_and_with_all_they_found(store: Store) -> None:
    last = check_that("last", [Finding("note", "b"), Finding("warning", "c")], rank=90)
    first = check_that("first", [Finding("ok", "a")], rank=10)
    found = examine(store, [last, first])
    assert [(each.name, each.level) for each in found] == [("first", "ok"), ("last", "warning")]
    assert [finding.what for finding in found[1].findings] == ["b", "c"]


def test_one_that_hangs_is_left_behind(store: Store) -> None:
    mended = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield Finding("ok", "before it hung")
        mended.wait(60)

    hanging = check_that("hanging", hangs())
    hanging.within_s = 0.3
    quick = check_that("quick", [Finding("ok", "here")])
    start = time.monotonic()
    found = {each.name: each for each in examine(store, [hanging, quick])}
    mended.set()
    assert time.monotonic() - start < 30
    assert [finding.what for finding in found["quick"].findings] == ["here"]
    assert found["hanging"].level == "warning"
    assert found["hanging"].findings[0].what == "before it hung"
    assert "no answer within" in found["hanging"].findings[1].what


def test_one_that_breaks_says_so_and_keeps_what_it_had(store: Store) -> None:
    [found] = examine(store, [check_that("broken", raising(KeyError("x")))])
    assert [finding.level for finding in found.findings] == ["ok", "warning"]
    assert found.findings[1].what == "this check broke: KeyError: 'x'"


def test_a_silent_store_is_a_fault_once(store: Store) -> None:
    silent = Unreachable("the store does not answer: refused")
    checks = [check_that(name, raising(silent)) for name in ("store", "queue", "nodes")]
    found = {each.name: each for each in examine(store, checks)}
    assert found["store"].level == "fault"
    assert found["queue"].level == "note"
    assert "not looked at" in found["nodes"].findings[1].what


def test_what_does_not_apply_is_not_shown(store: Store) -> None:
    class Absent(check_that("absent", [Finding("ok", "a")])):  # type: ignore[misc]
        def applies(self, store: Store) -> bool:
            del store
            return False

    assert examine(store, [Absent]) == []


def test_secrets_do_not_show(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret_of_a_test")
    said = Finding(
        "fault", "refused hf_planted_secret_of_a_test", "not hf_planted_secret_of_a_test"
    )
    [found] = examine(store, [check_that("loud", [said])])
    assert "planted" not in str(found)
    assert found.findings[0].what == "refused <HF_TOKEN>"


def test_the_worst_level_counts() -> None:
    assert worst([]) == "ok"
    assert worst([Finding("fault", ""), Finding("warning", "")]) == "fault"


def test_an_s3_store_is_given_up_on_soon() -> None:
    store = impatient(Store.open("s3://bucket/prefix?endpoint_url=http://127.0.0.1:9"))
    assert isinstance(store.backend, S3Backend)
    assert store.backend.place.deadline_s <= 10
    folder = Store.open("/tmp/somewhere")
    assert impatient(folder) is folder
