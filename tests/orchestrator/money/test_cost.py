"""Bills, by hand and by law: parts add up, savings are never negative, order does not matter."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Checkpointed,
    DriverEnded,
    DriverStarted,
    Failed,
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Suggested,
)
from orchestrator.log.state import SweepState, fold
from orchestrator.money.budget import BUDGET_RULE
from orchestrator.money.cost import Amount, CostReport, cost_of, cost_of_all
from orchestrator.money.price_history import PriceHistory

TOTAL = 1000
USD_PER_HOUR = 3600.0
"""A dollar a second."""


def stamped(events: Iterable[AnyEvent], writer: str = "a") -> list[AnyEvent]:
    return [
        event.model_copy(update={"writer": writer, "seq": seq, "at": float(seq)})
        for seq, event in enumerate(events, start=1)
    ]


def begun(trial: str = "t0", epoch: int = 1, tokens: int = 0, price: float = USD_PER_HOUR,
          source: str = "of the sweep") -> list[AnyEvent]:  # fmt: skip
    return [
        Suggested(trial=trial, number=0, config={}, total_tokens=TOTAL),
        Leased(trial=trial, epoch=epoch),
        Started(trial=trial, epoch=epoch, tokens=tokens, usd_per_hour=price, price_source=source),
    ]


def reported(
    tokens: int, seconds: float, epoch: int = 1, trial: str = "t0", lm: float = 0, alone: float = 0
) -> Reported:
    return Reported(
        trial=trial,
        epoch=epoch,
        tokens=tokens,
        metrics={},
        busy_seconds=seconds,
        lm_seconds=lm,
        lm_alone_seconds=alone,
    )


def stopped(tokens: int, rule: str = "asha", trial: str = "t0") -> Stopped:
    return Stopped(
        trial=trial, epoch=1, rule=rule, rung=tokens, metric="fvu", value=1.0, cutoff=0.5,
        against=3, reason="bad", tokens=tokens,
    )  # fmt: skip


def bill(*events: AnyEvent) -> CostReport:
    return cost_of(fold(stamped(events)), now=100.0)


def test_a_finished_trial_costs_its_device_time_at_the_price_of_its_device() -> None:
    report = bill(
        *begun(),
        reported(500, 4.0),
        Finished(trial="t0", epoch=1, artefact="a", metrics={}, tokens=TOTAL, busy_seconds=9.0),
    )
    assert report.spent == Amount(9.0, 9.0)
    assert report.per_finished == Amount(9.0, 9.0)
    assert report.saved_by_stopping == report.lost_to_preemption == Amount()
    assert report.has_price and not report.is_estimate


def test_early_stopping_saves_the_tokens_not_trained_at_the_trials_own_rate() -> None:
    report = bill(*begun(), reported(250, 5.0), stopped(250))
    assert report.saved_by_stopping == Amount(15.0, 15.0)  # 750 tokens at 5 s a 250
    assert report.one_run_each == Amount(20.0, 20.0)


@pytest.mark.parametrize("end", ["budget", "running", "cancelled"])
def test_what_ended_for_another_reason_saved_nothing(end: str) -> None:
    ends: dict[str, list[AnyEvent]] = {
        "budget": [stopped(250, BUDGET_RULE)],
        "running": [],
        "cancelled": [Cancelled(trial="t0", by="ada")],
    }
    report = bill(*begun(), reported(250, 5.0), *ends[end])
    assert [trial.state for trial in report.trials] == [end.replace("budget", "stopped")]
    assert report.saved_by_stopping == Amount()


def test_packing_saves_what_the_language_model_would_have_taken_alone() -> None:
    report = bill(*begun(), reported(500, 4.0, lm=1.5, alone=6.0))
    assert report.saved_by_packing == Amount(4.5, 4.5)


def test_a_preemption_costs_what_was_done_beyond_the_tokens_it_went_on_from() -> None:
    report = bill(
        *begun(),
        reported(200, 2.0),
        Checkpointed(trial="t0", epoch=1, tokens=300),
        reported(400, 6.0),
        Preempted(trial="t0", epoch=1, reason="gone", tokens=300),
        *begun(epoch=2, tokens=300)[1:],
        reported(500, 1.0, epoch=2),
    )
    # at 300 tokens, half way from 200 (2 s) to 400 (6 s), 4 s were spent: 2 of 6 are lost
    assert report.lost_to_preemption == Amount(2.0, 2.0)
    assert report.spent == Amount(7.0, 7.0)


def test_a_checkpoint_that_says_its_device_time_is_not_interpolated() -> None:
    report = bill(
        *begun(),
        reported(200, 2.0),
        Checkpointed(trial="t0", epoch=1, tokens=300, busy_seconds=2.5),
        reported(400, 6.0),
        Preempted(trial="t0", epoch=1, reason="gone", tokens=300),
    )
    assert report.lost_to_preemption == Amount(3.5, 3.5)


def test_an_older_checkpoint_than_thought_loses_the_work_of_several_leases() -> None:
    report = bill(
        *begun(),
        reported(400, 4.0),
        Preempted(trial="t0", epoch=1, reason="gone", tokens=400),
        *begun(epoch=2, tokens=400)[1:],
        reported(600, 2.0, epoch=2),
        Preempted(trial="t0", epoch=2, reason="gone", tokens=600),
        *begun(epoch=3, tokens=100)[1:],  # the newer ones were damaged
    )
    assert report.lost_to_preemption == Amount(3.0 + 2.0, 3.0 + 2.0)


def test_a_driver_that_died_loses_what_no_checkpoint_holds() -> None:
    log = [
        DriverStarted(host="h", pid=1),
        *begun(),
        Checkpointed(trial="t0", epoch=1, tokens=100),
        reported(300, 3.0),
    ]
    assert bill(*log).lost_to_preemption == Amount()
    dead = bill(*log, DriverEnded(driver="a", reason="killed"))
    assert dead.lost_to_preemption == Amount(2.0, 2.0)


def test_what_a_failure_made_do_again_is_not_called_a_preemption() -> None:
    report = bill(
        *begun(),
        reported(100, 1.0),
        Failed(trial="t0", epoch=1, reason="x", final=False),
        *begun(epoch=2)[1:],
        reported(200, 2.0, epoch=2),
    )
    assert report.lost_to_failures == Amount(1.0, 1.0)
    assert report.lost_to_preemption == Amount()


def test_device_time_without_a_price_is_told_apart() -> None:
    report = bill(*begun(price=0.0, source=""), reported(100, 5.0))
    assert (report.unpriced_seconds, report.has_price, report.spent.usd) == (5.0, False, 0.0)
    free = bill(*begun(price=0.0, source="label: it is ours"), reported(100, 5.0))
    assert (free.unpriced_seconds, free.has_price) == (0.0, True)


def test_a_price_that_moved_is_integrated_over_the_leases_life() -> None:
    source = "aws spot g5.xlarge in us-east-1a"
    events = stamped([*begun(price=1.0, source=source), reported(100, 7200.0)])
    started, at_end = 3.0, 4.0  # seconds at which they were written
    history = PriceHistory.of([(started, 2.0), ((started + at_end) / 2, 6.0)])
    report = cost_of(fold(events), now=9.0, histories={source: history})
    # 1 dollar was noted while the whole node cost 2; on the mean it cost 4
    assert report.spent.usd == pytest.approx(2 * 2.0)


def test_machines_cost_more_than_trials_and_the_rest_is_named() -> None:
    log = stamped(
        [
            DriverStarted(host="h", pid=1, num_nodes=2, usd_per_hour=2 * USD_PER_HOUR),
            *begun(),
            reported(100, 5.0),
            DriverEnded(driver="a", reason="done"),
        ]
    )
    log[-1] = log[-1].model_copy(update={"at": 11.0})
    report = cost_of(fold(log), now=1e6)
    assert report.machines.wall_seconds == 10.0
    assert (report.machines.device_seconds, report.machines.usd) == (20.0, 20.0)
    assert report.unattributed == Amount(15.0, 15.0)


def test_a_machine_that_worked_on_two_sweeps_counts_once() -> None:
    states, reports = [], []
    for writer in ("a", "b"):
        log = stamped([DriverStarted(host="h", pid=1, usd_per_hour=USD_PER_HOUR)], writer)
        log += [DriverEnded(driver=writer, reason="done", writer=writer, seq=2, at=11.0)]
        states.append(fold(log))
        reports.append(cost_of(states[-1], now=1e6))
    assert [report.machines.usd for report in reports] == [10.0, 10.0]
    assert cost_of_all(states, reports, now=1e6).machines.usd == 10.0


# Laws


@st.composite
def stories(draw: st.DrawFn) -> list[AnyEvent]:
    """Trials with several leases, prices, checkpoints and ends, as unlucky as it gets."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    events: list[AnyEvent] = [DriverStarted(host="h", pid=1, usd_per_hour=rng.random())]
    for number in range(rng.randint(1, 4)):
        trial, safe = f"t{number}", 0
        for epoch in range(1, rng.randint(2, 5)):
            price = rng.choice([0.0, 1.0, 7.0])
            source = rng.choice(["", "typical", "own"]) if price == 0 else "own"
            events += begun(trial, epoch, rng.choice([safe, 0]), price, source)
            tokens, busy = safe, 0.0
            for _ in range(rng.randint(0, 4)):
                tokens, busy = min(tokens + rng.randint(1, 300), TOTAL), busy + rng.random()
                lm = rng.random() * busy
                events.append(reported(tokens, busy, epoch, trial, lm, lm * rng.randint(1, 9)))
                if rng.random() < 0.5:
                    safe = tokens
                    known = busy if rng.random() < 0.5 else None
                    events.append(
                        Checkpointed(trial=trial, epoch=epoch, tokens=safe, busy_seconds=known)
                    )
            events += _interruption(rng, trial, epoch, safe)
        if rng.random() < 0.5:
            events.append(stopped(tokens, rng.choice(["asha", BUDGET_RULE]), trial))
    return stamped(events)


def _interruption(rng: random.Random, trial: str, epoch: int, safe: int) -> list[AnyEvent]:
    how = rng.choice(["preempted", "failed", "taken over"])
    if how == "preempted":
        return [Preempted(trial=trial, epoch=epoch, reason="gone", tokens=safe)]
    if how == "failed":
        return [Failed(trial=trial, epoch=epoch, reason="x", final=rng.random() < 0.2)]
    return []


def amounts(report: CostReport) -> list[Amount]:
    return [
        report.spent,
        report.lost_to_preemption,
        report.lost_to_failures,
        report.saved_by_stopping,
        report.saved_by_packing,
    ]


@settings(max_examples=60, deadline=None)
@given(stories())
def test_nothing_is_negative_and_what_was_lost_was_spent(events: list[AnyEvent]) -> None:
    for trial in cost_of(fold(events), now=1e4).trials:
        lost = trial.lost_to_preemption + trial.lost_to_failures
        assert 0 <= lost.seconds <= trial.spent.seconds + 1e-9
        assert 0 <= lost.usd <= trial.spent.usd + 1e-9
        assert min(trial.saved_by_stopping.seconds, trial.saved_by_packing.seconds) >= 0
        assert min(trial.saved_by_stopping.usd, trial.saved_by_packing.usd) >= 0
        assert 0 <= trial.unpriced_seconds <= trial.spent.seconds + 1e-9


@settings(max_examples=60, deadline=None)
@given(stories())
def test_parts_add_up(events: list[AnyEvent]) -> None:
    state = fold(events)
    report = cost_of(state, now=1e4)
    by_state = sum(report.by_state.values(), Amount())
    assert by_state.seconds == pytest.approx(report.spent.seconds)
    assert by_state.usd == pytest.approx(report.spent.usd)
    assert report.spent.seconds == pytest.approx(_busy_seconds(state))
    assert report.spent.usd == pytest.approx(sum(t.usd for t in state.trials.values()))
    wasted = sum(trial.wasted_seconds for trial in state.trials.values())
    assert report.lost_to_preemption.seconds == pytest.approx(wasted)
    whole, saved = report.one_run_each, report.saved_by_packing + report.saved_by_stopping
    assert whole.seconds == pytest.approx((report.spent + saved).seconds)


@settings(max_examples=60, deadline=None)
@given(stories(), st.randoms(use_true_random=False))
def test_the_order_in_which_events_are_read_changes_nothing(
    events: list[AnyEvent], rng: random.Random
) -> None:
    shuffled = list(events)
    rng.shuffle(shuffled)
    once, again = cost_of(fold(events), now=1e4), cost_of(fold(shuffled), now=1e4)
    assert [trial.trial for trial in once.trials] == [trial.trial for trial in again.trials]
    for one, other in zip(amounts(once), amounts(again), strict=True):
        assert one.seconds == pytest.approx(other.seconds)
        assert one.usd == pytest.approx(other.usd)


def _busy_seconds(state: SweepState) -> float:
    return sum(trial.busy_seconds for trial in state.trials.values())
