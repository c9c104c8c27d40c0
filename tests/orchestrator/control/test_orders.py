"""Orders of people: what they change, whoever drives the sweep, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.control.orders import OrderRefused
from orchestrator.log.events import Cancelled, Suggested
from orchestrator.log.find_trial import UnknownTrial
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.log.sweep_status import sweep_status
from orchestrator.serving.free_work import FreeWork
from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.desk import Done
from tests.orchestrator.control.wanted import (
    FAILED,
    GIVEN_BACK,
    Wanted,
    finished,
    report,
    take,
)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path)


def status(wanted: Wanted) -> str:
    return sweep_status(4, wanted.state())


def saved(store: Store, trial: str, folder: Path) -> Checkpoints:
    """A checkpoint of a trial, as a driver would have left it."""
    folder.mkdir()
    (folder / "state").write_text("x")
    checkpoints = Checkpoints(store, "steered", trial)
    checkpoints.save(folder, 5_000, 1)
    return checkpoints


def has_checkpoints(wanted: Wanted, trial: str) -> bool:
    return bool(wanted.store.backend.children(wanted.store.layout.checkpoints("steered", trial)))


# Cancel


def test_a_cancelled_sweep_keeps_what_finished_and_ends_the_rest(wanted: Wanted) -> None:
    desk = wanted.desk()
    done, running = take(desk), take(desk)
    desk.on_result(done, finished(done))
    said = wanted.orders().cancel().said
    assert said == "sweep steered: cancelled, 1 trial ended; kept 1 trial that finished"
    state = wanted.state()
    assert [t.status for t in state.by_number()] == ["finished", "cancelled"]
    assert state.trials[running.trial].reason == "cancelled by ada@laptop"
    assert status(wanted) == "cancelled"


def test_a_driver_lets_go_of_a_cancelled_trial_and_takes_the_next(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    wanted.orders().cancel([ticket.trial])
    assert not desk.on_result(ticket, report(5_000))
    assert ticket.trial not in desk.held
    assert take(desk).trial == "t0001"
    assert wanted.state().trials[ticket.trial].status == "cancelled"


def test_a_driver_of_a_cancelled_sweep_has_nothing_left_to_do(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    wanted.orders().cancel()
    assert not desk.on_result(ticket, GIVEN_BACK)
    assert isinstance(desk.next(), Done)


def test_what_was_suggested_while_a_sweep_was_cancelled_ends_as_cancelled(wanted: Wanted) -> None:
    """The canceller reads the log just before a driver appends its suggestion to it."""
    desk = wanted.desk()
    orders = wanted.orders()
    ticket = take(desk)
    orders.state = orders.log.state  # as it was
    orders.log.refresh = lambda: orders.log.state  # type: ignore[method-assign]
    assert orders.cancel().trials == ()
    assert not wanted.state().trials[ticket.trial].ended
    assert not desk.on_result(ticket, report(5_000))
    assert wanted.state().trials[ticket.trial].status == "cancelled"


def test_what_waits_in_a_cancelled_sweep_is_ended_without_a_driver(wanted: Wanted) -> None:
    orders = wanted.orders()
    orders.cancel()
    late = LogWriter(wanted.store, "steered")
    late.append(Suggested(trial="t0000", number=0, config={}, total_tokens=9))
    log = SweepLog(wanted.store, "steered", LogWriter(wanted.store, "steered", "supervisor"))
    assert not FreeWork(wanted.store, wanted.queued, log).is_there()
    assert wanted.state().trials["t0000"].status == "cancelled"
    assert status(wanted) == "cancelled"


def test_who_finished_first_stays_finished(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    orders = wanted.orders()
    desk.on_result(ticket, finished(ticket))
    done = orders.cancel([ticket.trial])
    assert done.trials == () and "ended by itself just before" in done.said
    assert wanted.state().trials[ticket.trial].status == "finished"


def test_an_end_that_was_created_but_not_logged_is_told_by_the_next(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    end = Cancelled(trial=ticket.trial, by="ada@laptop")
    key = wanted.store.layout.end("steered", ticket.trial)
    wanted.store.create_json(key, end.model_dump(mode="json"))
    desk.on_result(ticket, finished(ticket))
    assert wanted.state().trials[ticket.trial].status == "cancelled"


def test_checkpoints_of_a_waiting_trial_go_with_it(wanted: Wanted, tmp_path: Path) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    saved(wanted.store, ticket.trial, tmp_path / "saved")
    desk.on_result(ticket, GIVEN_BACK)
    wanted.orders().cancel([ticket.trial])
    assert not has_checkpoints(wanted, ticket.trial)


# Pause and resume


def test_nothing_of_a_paused_sweep_is_handed_out_until_it_is_resumed(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    said = wanted.orders().pause().said
    assert said == "sweep steered: paused; 1 trial that runs is checkpointed and let go"
    assert desk.next() is None
    desk.on_result(ticket, GIVEN_BACK)
    assert isinstance(desk.next(), Done)
    assert status(wanted) == "paused"
    wanted.orders().resume()
    assert take(wanted.desk()).trial == ticket.trial


def test_a_paused_trial_lets_the_others_run(wanted: Wanted) -> None:
    wanted.orders()
    desk = wanted.desk()
    ticket = take(desk)
    desk.on_result(ticket, GIVEN_BACK)
    wanted.orders().pause(["0"])
    assert take(desk).trial == "t0001"
    wanted.orders().resume([ticket.trial])
    assert take(desk).trial == ticket.trial


def test_a_sweep_resumes_with_the_trials_that_were_paused_one_by_one(wanted: Wanted) -> None:
    desk = wanted.desk()
    tickets = [take(desk), take(desk)]
    for ticket in tickets:
        desk.on_result(ticket, GIVEN_BACK)
    wanted.orders().pause([tickets[0].trial])
    wanted.orders().pause()
    wanted.orders().resume()
    assert not wanted.state().controls.paused_trials
    assert {take(desk).trial, take(desk).trial} == {ticket.trial for ticket in tickets}


def test_one_trial_of_a_paused_sweep_may_be_resumed_alone(wanted: Wanted) -> None:
    desk = wanted.desk()
    tickets = [take(desk), take(desk)]
    for ticket in tickets:
        desk.on_result(ticket, GIVEN_BACK)
    wanted.orders().pause()
    wanted.orders().resume([tickets[1].trial])
    assert take(desk).trial == tickets[1].trial
    assert desk.next() is None


def test_a_sweep_whose_last_trials_are_all_paused_is_paused(wanted: Wanted) -> None:
    desk = wanted.desk()
    tickets = [take(desk) for _ in range(4)]
    for ticket in tickets[:3]:
        desk.on_result(ticket, finished(ticket))
    desk.on_result(tickets[3], GIVEN_BACK)
    wanted.orders().pause([tickets[3].trial])
    assert status(wanted) == "paused"
    log = SweepLog(wanted.store, "steered", LogWriter(wanted.store, "steered", "supervisor"))
    free_work = FreeWork(wanted.store, wanted.queued, log)
    assert not free_work.is_there()
    assert free_work.why_not == "all that is left is paused"


def test_what_runs_may_run_to_its_end_in_a_paused_sweep(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    said = wanted.orders().pause(keep_running=True).said
    assert said == "sweep steered: paused; 1 trial that runs goes on to the end"
    assert desk.on_result(ticket, report(5_000))
    assert desk.next() is None


# Retry


def test_a_failed_trial_lives_again_from_its_checkpoint(wanted: Wanted, tmp_path: Path) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    saved(wanted.store, ticket.trial, tmp_path / "saved")
    desk.on_result(ticket, FAILED)
    assert wanted.state().trials[ticket.trial].status == "failed"
    assert has_checkpoints(wanted, ticket.trial)
    assert wanted.orders().retry().trials == (ticket.trial,)
    again = take(desk)
    assert (again.trial, again.epoch, again.life) == (ticket.trial, 2, 1)
    desk.on_result(again, finished(again))
    trial = wanted.state().trials[ticket.trial]
    assert (trial.status, trial.life, trial.num_failures) == ("finished", 1, 0)


def test_a_retried_trial_may_fail_again_and_be_retried_again(wanted: Wanted) -> None:
    desk = wanted.desk()
    for life in range(3):
        ticket = take(desk)
        assert (ticket.trial, ticket.life) == ("t0000", life)
        desk.on_result(ticket, FAILED)
        assert wanted.state().trials["t0000"].status == "failed"
        wanted.orders().retry(["t0000"])
    assert wanted.state().trials["t0000"].status == "queued"


def test_two_people_who_retry_at_once_give_one_life(wanted: Wanted) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    desk.on_result(ticket, FAILED)
    one, other = wanted.orders("ada@laptop"), wanted.orders("bob@cluster")
    one.retry()
    other.retry()
    assert wanted.state().trials[ticket.trial].life == 1


def test_a_trial_may_be_retried_from_the_beginning(wanted: Wanted, tmp_path: Path) -> None:
    desk = wanted.desk()
    ticket = take(desk)
    saved(wanted.store, ticket.trial, tmp_path / "saved")
    desk.on_result(ticket, FAILED)
    wanted.orders().retry(afresh=True)
    assert not has_checkpoints(wanted, ticket.trial)


def test_a_sweep_that_was_given_up_is_reopened(wanted: Wanted) -> None:
    before = wanted.state().controls.max_order
    assert "tries the sweep again at once" in wanted.orders().retry().said
    assert wanted.state().controls.max_order > before
    assert wanted.state().controls.reopened is not None


def test_a_stale_driver_cannot_fail_a_trial_that_lives_again(wanted: Wanted) -> None:
    """It takes a lease without having heard of the failure, and tells the old end once more."""
    stale, desk = wanted.desk(), wanted.desk()
    ticket = take(desk)
    stale.log.refresh()
    desk.on_result(ticket, FAILED)
    key = wanted.store.layout.lease("steered", ticket.trial, 2)
    wanted.store.create_json(key, {"holder": stale.leases.holder, "epoch": 2})
    stale.ends.announce(ticket.trial, 2, 0)
    wanted.orders().retry()
    stale.ends.announce(ticket.trial, 2, 0)
    assert wanted.state().trials[ticket.trial].status == "queued"


# Priority


def test_the_last_priority_counts(wanted: Wanted) -> None:
    assert wanted.state().priority is None
    wanted.orders().prioritise(5)
    assert wanted.orders().prioritise(-2).said == "sweep steered: priority -2, was 5"
    assert wanted.state().priority == -2


# Refused


def test_nonsense_is_refused_and_changes_nothing(wanted: Wanted) -> None:
    desk = wanted.desk()
    done, running = take(desk), take(desk)
    desk.on_result(done, finished(done))
    before = wanted.state().controls.max_order
    orders = wanted.orders()
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: orders.cancel([done.trial]), r"t0000 has ended \(finished\)"),
        (lambda: orders.pause([done.trial]), r"t0000 has ended \(finished\)"),
        (lambda: orders.resume(), "only what is paused can be resumed; sweep steered is not"),
        (lambda: orders.resume([running.trial]), "t0001 is not"),
        (lambda: orders.retry([running.trial]), "only a failed trial.*; t0001 is running"),
        (lambda: orders.retry(), "runs and none of its trials has failed"),
        (lambda: orders.prioritise(10**9), "a priority lies between"),
    ]
    for order, message in refused:
        with pytest.raises(OrderRefused, match=message):
            order()
    with pytest.raises(UnknownTrial, match="Did you mean 't0001'"):
        orders.cancel(["t001"])
    assert wanted.state().controls.max_order == before
    orders.pause()
    with pytest.raises(OrderRefused, match="was paused by ada@laptop"):
        wanted.orders().pause()


def test_a_cancelled_sweep_takes_no_more_orders(wanted: Wanted) -> None:
    wanted.orders().cancel()
    orders = wanted.orders()
    refused: list[Callable[[], object]] = [
        orders.cancel,
        orders.pause,
        orders.retry,
        lambda: orders.prioritise(1),
    ]
    for order in refused:
        with pytest.raises(OrderRefused, match="cancelled by ada@laptop"):
            order()
