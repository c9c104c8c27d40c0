"""What is begun, and what is not, when whoever works here has to end soon."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from orchestrator.log.events import AnyEvent, Leased, Started, Suggested
from orchestrator.log.state import SweepState, fold
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.desk import Desk, Done, Ticket
from orchestrator.trials.time_left import DEFAULT_START_S, SAVE_S, TimeLeft, start_seconds
from tests.orchestrator.trials.test_desk import TEXT, Clock, desk


def seen(*starts: tuple[str, float], lost: int = 0) -> SweepState:
    """Trials that took so long to start, on those hosts, one after the other."""
    events: list[AnyEvent] = []
    for number, (host, seconds) in enumerate(starts):
        trial, at = f"t{number:04d}", 1000.0 * (number + 1)
        seq = 10 * number
        about = {"trial": trial, "epoch": 1, "writer": "d"}
        config = {"number": number, "config": {}, "total_tokens": 1}
        events.append(Suggested.model_validate({**about, **config, "seq": seq}))
        events.append(Leased.model_validate({**about, "seq": seq + 1, "at": at}))
        started = {**about, "seq": seq + 2, "at": at + seconds, "host": host}
        events.append(Started.model_validate(started))
        if number < lost:  # a later lease, under which it has not started yet
            events.append(Leased(trial=trial, epoch=2, writer="e", seq=seq, at=at + 500))
    return fold(events)


def test_a_start_is_what_the_last_ones_on_this_host_took() -> None:
    state = seen(*[("here", s) for s in (90.0, 3.0, 4.0, 2.0, 5.0, 3.0)], ("there", 70.0))
    assert start_seconds(state, "here") == 3.0
    assert start_seconds(state, "there") == 70.0


def test_on_a_new_host_the_sweep_s_other_ones_count_and_without_any_a_guess() -> None:
    assert start_seconds(seen(("there", 20.0), ("elsewhere", 30.0)), "here") == 25.0
    assert start_seconds(SweepState(), "here") == DEFAULT_START_S


def test_a_lease_that_has_not_started_yet_tells_nothing() -> None:
    state = seen(("here", 20.0), ("here", 30.0), lost=1)
    assert start_seconds(state, "here") == 30.0


def test_without_an_end_there_is_always_time() -> None:
    time_left = TimeLeft()
    assert time_left.left_s == inf
    assert not time_left.is_short(SweepState(), before_s=1e9)


def test_the_reason_has_both_numbers_and_goes_when_there_is_time() -> None:
    clock = Clock()
    time_left = TimeLeft(ends_at=100.0, host="here", clock=clock)
    state = seen(("here", 30.0))
    assert not time_left.is_short(state) and time_left.why_not == ""
    clock.now = 61.0
    assert time_left.is_short(state)
    assert time_left.why_not == (
        "not begun: 39 s are left, and starting a trial and saving what it did takes 40 s"
    )
    clock.now = 130.0
    assert time_left.is_short(state) and "0 s are left" in time_left.why_not
    clock.now = 59.0
    assert not time_left.is_short(state) and time_left.why_not == ""
    assert time_left.is_short(state, before_s=10.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "store"))
    Queue(store).submit(parse_sweep(TEXT), TEXT)
    return store


def with_end(store: Store, clock: Clock, ends_at: float) -> Desk:
    one = desk(store)
    one.time_left = TimeLeft(ends_at, "here", clock)
    return one


def test_a_desk_keeps_what_it_holds_and_begins_nothing_near_the_end(store: Store) -> None:
    clock = Clock()
    one = with_end(store, clock, ends_at=1000.0)
    held = one.next()
    assert isinstance(held, Ticket)
    clock.now = 1000.0 - DEFAULT_START_S - SAVE_S + 1.0
    assert one.next() is None, "what runs runs on"
    assert one.time_left.why_not.startswith("not begun: ")
    one.on_result(held, {"kind": "preempted", "reason": "asked to stop"})
    assert isinstance(one.next(), Done), "with nothing held the driver may end"
    assert one.log.refresh().trials[held.trial].epoch == held.epoch, "nobody took it for nothing"
