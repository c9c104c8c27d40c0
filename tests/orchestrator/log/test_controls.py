"""Which of several orders holds: numbers before clocks, and the same for every order of reading."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.log.controls import Controls
from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Closed,
    DriverStarted,
    Extended,
    Failed,
    Finished,
    Leased,
    Paused,
    Prioritised,
    Reopened,
    Resumed,
    Retried,
    Suggested,
    TrialEvent,
)
from orchestrator.log.state import fold, fold_trial
from orchestrator.log.sweep_status import num_to_suggest, sweep_status


def said(event: Any, order: int, at: float = 0.0, writer: str = "w") -> Any:
    return event.model_copy(update={"order": order, "at": at, "writer": writer, "seq": order})


def controls(*events: AnyEvent) -> Controls:
    folded = Controls()
    for event in events:
        folded.add(event)
    return folded


def paused(order: int, trial: str = "", **more: Any) -> Any:
    return said(Paused(by="ada", order=order, trial=trial, **more), order)


def resumed(order: int, trial: str = "", at: float = 0.0) -> Any:
    return said(Resumed(by="ada", order=order, trial=trial), order, at)


def test_the_higher_number_holds_though_its_clock_is_slow() -> None:
    late_clock = said(Paused(by="bob", order=1), 1, at=1e9)
    assert controls(late_clock, resumed(2, at=5.0)).paused is None


def test_of_equal_numbers_one_holds_whoever_is_read_first() -> None:
    one = said(Prioritised(by="ada", order=1, priority=1), 1, at=1.0, writer="a")
    other = said(Prioritised(by="bob", order=1, priority=2), 1, at=1.0, writer="b")
    assert controls(one, other).priority == controls(other, one).priority == 2


def test_a_trial_stands_still_by_the_last_word_about_it_or_about_the_sweep() -> None:
    assert controls(paused(1)).pause_of("t") is not None
    assert controls(paused(1), resumed(2, "t")).pause_of("t") is None
    assert controls(paused(1, "t"), resumed(2)).pause_of("t") is None
    assert controls(resumed(1), paused(2, "t")).pause_of("u") is None
    assert set(controls(paused(1, "t"), paused(2, "u"), resumed(3, "u")).paused_trials) == {"t"}


def test_a_closing_is_lifted_by_what_was_ordered_after_it_and_a_cancel_never() -> None:
    closed = Closed(reason="budget", order=3)
    extended = said(Extended(by="ada", order=4, usd=5.0), 4)
    assert controls(closed).closed == closed
    assert controls(closed, extended).closed is None
    assert controls(closed, said(Reopened(by="ada", order=4), 4)).closed is None
    again = Closed(reason="budget again", order=4)
    assert controls(extended, closed, again).closed == again
    cancelled = Closed(reason="cancelled by ada", by="ada", order=2)
    assert controls(closed, cancelled, extended).closed == cancelled


orders = st.lists(
    st.builds(
        lambda what, order, writer: said(what, order, float(order % 2), writer),
        st.sampled_from(
            [
                Paused(by="x", order=0),
                Paused(by="x", order=0, trial="t"),
                Resumed(by="x", order=0),
                Resumed(by="x", order=0, trial="t"),
                Prioritised(by="x", order=0, priority=3),
                Extended(by="x", order=0, trials=7),
                Reopened(by="x", order=0),
                Closed(reason="budget"),
                Closed(reason="cancelled", by="x"),
            ]
        ),
        st.integers(0, 4),
        st.sampled_from("ab"),
    ),
    max_size=8,
    unique_by=lambda event: (event.writer, event.seq),
)


@given(orders, st.randoms(use_true_random=False))
def test_any_order_of_reading_gives_the_same(events: list[AnyEvent], rng: Any) -> None:
    shuffled = list(events)
    rng.shuffle(shuffled)
    one, other = controls(*events), controls(*shuffled)
    for name in ("paused", "paused_trials", "priority", "reopened", "closed", "max_order"):
        assert getattr(one, name) == getattr(other, name), name


# Lives


def stamped(event: TrialEvent, writer: str, seq: int) -> TrialEvent:
    return event.model_copy(update={"writer": writer, "seq": seq, "at": float(seq)})


def first_life() -> list[TrialEvent]:
    return [
        stamped(Suggested(trial="t", number=0, config={}, total_tokens=9), "a", 1),
        stamped(Leased(trial="t", epoch=1), "a", 2),
        stamped(Failed(trial="t", epoch=1, reason="x", final=True), "a", 3),
    ]


def test_a_retry_begins_a_life_without_failures_and_the_same_one_twice_begins_one() -> None:
    retried = Retried(trial="t", epoch=1, life=1, by="ada")
    once = fold_trial("t", [*first_life(), stamped(retried, "u", 1)])
    twice = fold_trial("t", [*first_life(), stamped(retried, "u", 1), stamped(retried, "v", 1)])
    assert once == twice
    assert (once.status, once.life, once.num_failures, once.ended_at) == ("queued", 1, 0, None)
    assert once.reason == "retried by ada" and once.traceback == ""


def test_a_life_is_seen_from_what_was_done_in_it_though_nobody_saw_the_retry() -> None:
    second = [
        stamped(Leased(trial="t", epoch=2, life=1, total_tokens=20), "b", 1),
        stamped(Finished(trial="t", epoch=2, life=1, artefact="a", metrics={}, tokens=9), "b", 2),
    ]
    state = fold_trial("t", [*first_life(), *second])
    assert (state.status, state.life, state.total_tokens) == ("finished", 1, 20)


def test_a_cancel_ends_the_life_it_was_said_of_and_none_after_it() -> None:
    cancel = stamped(Cancelled(trial="t", life=1, by="ada"), "u", 1)
    assert fold_trial("t", [*first_life(), cancel]).status == "cancelled"
    late = stamped(Cancelled(trial="t", life=0, by="ada"), "u", 1)
    assert fold_trial("t", [*first_life(), late]).status == "failed"


def test_nothing_but_a_failure_is_undone_by_a_retry() -> None:
    finished = Finished(trial="t", epoch=1, artefact="a", metrics={}, tokens=9)
    retried = Retried(trial="t", epoch=1, life=1)
    events = [stamped(finished, "a", 1), stamped(retried, "u", 1)]
    assert fold_trial("t", events).status == "finished"


def test_a_lease_taken_after_the_end_is_used_up_in_the_next_life() -> None:
    stale = stamped(Leased(trial="t", epoch=2), "stale", 1)
    retried = stamped(Retried(trial="t", epoch=1, life=1), "u", 1)
    state = fold_trial("t", [*first_life(), stale, retried])
    assert (state.status, state.epoch) == ("queued", 2)


# Where a sweep stands


def driver(event: Any, writer: str = "d", seq: int = 1) -> Any:
    return event.model_copy(update={"writer": writer, "seq": seq})


def test_a_sweep_is_paused_once_nothing_runs_though_its_driver_is_still_there() -> None:
    started = driver(DriverStarted(host="h", pid=1))
    suggested = driver(Suggested(trial="t", number=0, config={}, total_tokens=9), seq=2)
    leased = driver(Leased(trial="t", epoch=1), seq=3)
    assert sweep_status(4, fold([started, suggested, leased, paused(1)])) == "running"
    assert sweep_status(4, fold([started, suggested, paused(1)])) == "paused"
    assert sweep_status(4, fold([started, suggested, paused(1), resumed(2)])) == "running"
    assert sweep_status(4, fold([paused(1)])) == "paused"


def test_an_extended_sweep_is_not_over() -> None:
    events = [driver(event) for event in first_life()[:1]]
    ended = driver(Finished(trial="t", epoch=1, artefact="a", metrics={}, tokens=9), seq=2)
    assert sweep_status(1, fold([*events, ended])) == "finished"
    extended = said(Extended(by="ada", order=1, trials=3), 1)
    assert sweep_status(1, fold([*events, ended, extended])) == "interrupted"
    assert num_to_suggest(1, fold([*events, ended, extended])) == 2
