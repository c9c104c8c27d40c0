"""What a driver's trials are told through the store while they run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.control.extend import More, extend
from orchestrator.control.watch import ControlWatch
from orchestrator.log.events import DriverEnded
from orchestrator.log.sweep_log import LogWriter
from orchestrator.trials.desk import Done
from tests.orchestrator.control.wanted import GIVEN_BACK, Wanted, finished, take


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path)


def test_nobody_is_asked_back_without_an_order(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    assert ControlWatch(desk).look() == []
    assert wanted.given_back(ticket) is None


def test_a_cancelled_trial_is_asked_back_without_a_checkpoint(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket, other = take(desk), take(desk)
    wanted.orders().cancel([ticket.trial])
    assert ControlWatch(desk).look() == [ticket.trial]
    assert wanted.given_back(ticket) == {"reason": "cancelled by ada@laptop", "save": False}
    assert wanted.given_back(other) is None


def test_all_of_a_cancelled_sweep_is_asked_back_also_what_the_canceller_did_not_see(
    wanted: Wanted,
) -> None:
    desk = wanted.desk()
    wanted.orders().cancel()
    desk.log.state.controls._closings.clear()  # it has not read the log since
    desk.log.refresh = lambda: desk.log.state  # type: ignore[method-assign]
    ticket = take(desk)
    assert ControlWatch(desk).look() == [ticket.trial]


def test_a_pause_asks_for_a_checkpoint_and_asks_each_lease_once(wanted: Wanted) -> None:
    desk = wanted.desk()
    watch = ControlWatch(desk)
    ticket = take(desk)
    wanted.orders().pause()
    assert watch.look() == [ticket.trial]
    assert watch.look() == []
    assert wanted.given_back(ticket) == {"reason": "paused by ada@laptop", "save": True}
    desk.on_result(ticket, GIVEN_BACK)
    wanted.orders().resume()
    again = take(desk)
    assert (again.trial, again.epoch) == (ticket.trial, 2)
    assert watch.look() == []
    assert wanted.given_back(again) is None


def test_a_pause_that_lets_run_asks_nobody_back_until_one_that_does_not(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    wanted.orders().pause(keep_running=True)
    assert ControlWatch(desk).look() == []
    wanted.orders().pause()
    assert ControlWatch(desk).look() == [ticket.trial]


def test_a_longer_length_asks_back_who_runs_under_the_old_one(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket, done = take(desk), take(desk)
    desk.on_result(done, finished(done))
    watch = ControlWatch(desk)
    extend(wanted.orders(), More(tokens="180k"))
    assert watch.look() == [ticket.trial]
    assert wanted.given_back(ticket) == {"reason": "extended to 180k tokens", "save": True}
    desk.on_result(ticket, GIVEN_BACK)
    take(desk)
    assert watch.look() == []


def test_a_driver_that_was_taken_for_dead_drops_its_work_and_ends(wanted: Wanted) -> None:
    """Stopped for a minute, say; others may have its trials by now, and soon will."""
    desk = wanted.desk()
    ticket = take(desk)
    other = LogWriter(wanted.store, "steered")
    other.append(DriverEnded(driver=desk.leases.holder, reason="silent for 20 s"))
    assert ControlWatch(desk).look() == [ticket.trial]
    assert desk.draining
    assert not desk.on_result(ticket, GIVEN_BACK)
    assert isinstance(desk.next(), Done)
    assert take(wanted.desk()).trial == ticket.trial


def test_it_looks_by_itself_and_stops_with_its_block(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    with ControlWatch(desk, every_s=0.01):
        wanted.orders().pause()
        deadline = time.monotonic() + 30
        while wanted.given_back(ticket) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
