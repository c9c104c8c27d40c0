"""Leases: one holder at a time, silence by the observer's own clock, no word from a lost lease."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import TrialEvent
from orchestrator.log.sweep_log import LogReader
from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.desk import Desk, Done
from orchestrator.trials.leases import Leases
from orchestrator.trials.recall import look_for_recall
from orchestrator.trials.ticket import Ticket
from tests.orchestrator.control.wanted import FAILED, GIVEN_BACK, Wanted, finished, report, take


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path)


def beat(store: Store, holder: str, count: int, at: float = 0.0) -> None:
    store.write_json(store.layout.heartbeat("steered", holder), {"beat": count, "at": at})


def nobody_is_gone(holder: str) -> bool:
    del holder
    return False


# Silence


@pytest.mark.parametrize("skew_s", [-1e6, 0.0, 1e6])
def test_clocks_of_other_machines_do_not_matter(wanted: Wanted, skew_s: float) -> None:
    """A holder whose wall clock is days off is alive while its counter moves, and gone after."""
    clock = Clock(now=5.0)
    leases = Leases(wanted.store, "steered", "observer", clock)
    for count in range(4):
        beat(wanted.store, "holder", count, at=skew_s + 17.0 * count)
        clock.now += 17.0
        assert not leases.is_silent("holder")
    clock.now += 19.0
    assert not leases.is_silent("holder")
    clock.now += 2.0
    assert leases.is_silent("holder")


def test_a_holder_that_was_stopped_and_goes_on_in_time_keeps_its_lease(wanted: Wanted) -> None:
    clock = Clock()
    leases = Leases(wanted.store, "steered", "observer", clock)
    beat(wanted.store, "holder", 0)
    assert not leases.is_silent("holder")
    clock.now = 19.0
    beat(wanted.store, "holder", 1)
    assert not leases.is_silent("holder")
    clock.now = 38.0
    assert not leases.is_silent("holder")


def test_an_observer_that_was_stopped_itself_does_not_take_its_own_sleep_for_silence(
    wanted: Wanted,
) -> None:
    clock = Clock()
    leases = Leases(wanted.store, "steered", "observer", clock)
    beat(wanted.store, "holder", 0)
    assert not leases.is_silent("holder")
    beat(wanted.store, "holder", 9)
    clock.now = 60.0
    assert not leases.is_silent("holder")


def test_of_two_who_find_a_lease_free_one_takes_it(wanted: Wanted) -> None:
    clocks = [Clock(), Clock(100.0)]
    leases = [Leases(wanted.store, "steered", f"w{n}", clock) for n, clock in enumerate(clocks)]
    assert Leases(wanted.store, "steered", "gone").take("t0000", 0, nobody_is_gone) == 1
    assert [each.take("t0000", 0, nobody_is_gone) for each in leases] == [None, None]
    for clock in clocks:
        clock.now += 21.0
    taken = [each.take("t0000", 0, nobody_is_gone) for each in leases]
    assert taken == [2, None]
    assert [each.holds("t0000", 1) for each in leases] == [False, False]
    assert leases[0].holds("t0000", 2)


# The driver that comes back


class Comeback:
    """A driver that was stopped for too long, and the one that has its trial by now."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.stale, self.fresh = wanted.desk(), wanted.desk()
        self.lost = take(self.stale)
        self.stale.on_result(self.lost, report(5_000))
        clock = Clock()
        self.fresh.leases._clock = clock
        others = [take(self.fresh) for _ in range(3)]
        assert self.fresh.next() is None
        clock.now = 21.0
        self.taken = take(self.fresh)
        assert (self.taken.trial, self.taken.epoch) == (self.lost.trial, 2)
        for ticket in others:
            self.fresh.on_result(ticket, finished(ticket))

    def said_by(self, desk: Desk) -> list[dict[str, Any]]:
        """Its events about the trial."""
        return [
            json.loads(event.model_dump_json())
            for event in LogReader(self.wanted.store, "steered").poll()
            if isinstance(event, TrialEvent)
            and event.writer == desk.leases.holder
            and event.trial == self.lost.trial
        ]


@pytest.fixture
def comeback(wanted: Wanted) -> Comeback:
    return Comeback(wanted)


def unusable(ticket: Ticket) -> dict[str, Any]:
    del ticket
    return {"kind": "unusable", "reason": "no such model"}


def reported(ticket: Ticket) -> dict[str, Any]:
    del ticket
    return {**report(10_000), "checkpoint_tokens": 9_000}


def failed(ticket: Ticket) -> dict[str, Any]:
    del ticket
    return FAILED


def given_back(ticket: Ticket) -> dict[str, Any]:
    del ticket
    return GIVEN_BACK


@pytest.mark.parametrize("result", [reported, finished, failed, given_back, unusable])
def test_a_driver_that_comes_back_drops_its_work_without_a_word(
    comeback: Comeback, result: Any
) -> None:
    before = comeback.said_by(comeback.stale)
    assert not comeback.stale.on_result(comeback.lost, result(comeback.lost))
    assert comeback.said_by(comeback.stale) == before
    assert comeback.lost.trial not in comeback.stale.held
    end = comeback.wanted.store.layout.end("steered", comeback.lost.trial)
    assert not comeback.wanted.store.backend.exists(end)
    trial = comeback.wanted.state().trials[comeback.lost.trial]
    assert (trial.status, trial.epoch) == ("running", 2)


def test_nor_does_it_say_a_word_when_its_trial_process_dies_or_it_ends(comeback: Comeback) -> None:
    before = comeback.said_by(comeback.stale)
    comeback.stale.on_lost(comeback.lost, "its trial process is gone")
    assert comeback.said_by(comeback.stale) == before
    other = Comeback(Wanted(comeback.wanted.store.backend.root / "second"))  # type: ignore[attr-defined]
    before = other.said_by(other.stale)
    other.stale.release_all("asked to stop")
    assert other.said_by(other.stale) == before


def test_its_actor_is_told_that_the_lease_is_gone_and_writes_nothing(comeback: Comeback) -> None:
    lost, taken = comeback.lost, comeback.taken
    recall = look_for_recall(comeback.wanted.store, "steered", lost.trial, lost.epoch)
    assert recall is not None and recall.lost and not recall.save
    assert look_for_recall(comeback.wanted.store, "steered", taken.trial, taken.epoch) is None


def test_it_takes_nothing_new_since_others_take_it_for_dead(comeback: Comeback) -> None:
    """What it took would look free to everybody else at once."""
    comeback.stale.on_result(comeback.lost, report(10_000))
    assert isinstance(comeback.stale.next(), Done)
    assert comeback.stale.draining


def test_the_holder_goes_on_undisturbed(comeback: Comeback) -> None:
    comeback.stale.on_result(comeback.lost, finished(comeback.lost))
    assert comeback.fresh.on_result(comeback.taken, report(10_000))
    comeback.fresh.on_result(comeback.taken, finished(comeback.taken))
    trial = comeback.wanted.state().trials[comeback.lost.trial]
    assert (trial.status, trial.epoch) == ("finished", 2)


def test_checkpoints_of_the_holder_survive_what_the_stale_driver_does(
    comeback: Comeback, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state").write_text("x")
    checkpoints = Checkpoints(comeback.wanted.store, "steered", comeback.lost.trial)
    checkpoints.save(folder, 9_000, comeback.taken.epoch)
    for result in (finished(comeback.lost), GIVEN_BACK):
        comeback.stale.on_result(comeback.lost, result)
    assert checkpoints.fetch_newest(tmp_path / "resume") is not None
