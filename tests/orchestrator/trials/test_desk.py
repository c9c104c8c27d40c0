"""The desk without Ray: who gets which trial, what a report leads to, what is never done twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import DriverEnded, DriverStarted
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.desk import Desk, Done, Ticket

TEXT = """
name: desk
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space:
  architecture: topk
  d_sae: 64
  k: 4
  lr: {choice: [1.0e-4, 3.0e-4, 1.0e-3, 3.0e-3]}
search: {sampler: grid}
early_stop: {scheduler: asha, grace: 10k, reduction: 3}
max_failures: 1
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "store"))
    Queue(store).submit(parse_sweep(TEXT), TEXT)
    return store


def desk(store: Store, changes: str = "") -> Desk:
    """A driver's desk, announced in the log."""
    spec = parse_sweep(TEXT + changes)
    writer = LogWriter(store, "desk")
    log = SweepLog(store, "desk", writer)
    log.append(DriverStarted(host="here", pid=1))
    return Desk(store, "desk", spec, log, max_members=4)


def take(desk: Desk) -> Ticket:
    ticket = desk.next()
    assert isinstance(ticket, Ticket)
    return ticket


def report(tokens: int, fvu: float, **metrics: float) -> dict[str, Any]:
    numbers = {"fvu": fvu, "loss": 1.0, "l0": 4.0, "dead_fraction": 0.0, **metrics}
    return {"kind": "report", "tokens": tokens, "metrics": numbers, "busy_seconds": 1.0, "at": {}}


def finished(artefact: str) -> dict[str, Any]:
    numbers = {"artefact": artefact, "metrics": {"fvu": 0.1}, "tokens": 90000}
    return {"kind": "finished", "finished": {**numbers, "busy_seconds": 2.0}}


def status(desk: Desk, ticket: Ticket) -> str:
    return desk.log.refresh().trials[ticket.trial].status


def test_two_drivers_on_one_sweep_share_its_trials_and_none_runs_twice(store: Store) -> None:
    one, other = desk(store), desk(store)
    tickets = [take(one), take(other), take(one), take(other)]
    assert len({ticket.trial for ticket in tickets}) == 4
    assert len({ticket.config["lr"] for ticket in tickets}) == 4
    assert one.next() is None, "nothing to hand out, but its own trials may come back"


def test_a_driver_may_end_when_others_hold_what_remains(store: Store) -> None:
    one, other = desk(store), desk(store)
    for _ in range(4):
        take(one)
    assert isinstance(other.next(), Done)


def test_the_worse_of_two_is_stopped_at_its_rung_with_the_numbers(store: Store) -> None:
    it = desk(store)
    good, bad = take(it), take(it)
    assert it.on_result(good, report(10_000, fvu=0.2))
    assert not it.on_result(bad, report(10_000, fvu=0.5))
    stop = it.log.state.trials[bad.trial].stop
    assert stop is not None
    assert (stop.rung, stop.value, stop.cutoff, stop.against) == (10_000, 0.5, 0.2, 1)


def test_who_came_first_to_a_rung_is_judged_again_when_a_better_one_has_come(store: Store) -> None:
    it = desk(store)
    bad, good = take(it), take(it)
    assert it.on_result(bad, report(10_000, fvu=0.5)), "nobody to compare with yet"
    assert it.on_result(good, report(10_000, fvu=0.2))
    assert not it.on_result(bad, report(15_000, fvu=0.4))
    stop = it.log.state.trials[bad.trial].stop
    assert stop is not None and stop.rung == 10_000 and stop.value == 0.5
    assert it.on_result(good, report(15_000, fvu=0.1))


def test_a_trial_at_its_end_is_not_stopped_any_more(store: Store) -> None:
    it = desk(store)
    late, good = take(it), take(it)
    assert it.on_result(late, report(10_000, fvu=0.5))
    assert it.on_result(good, report(10_000, fvu=0.2))
    assert it.on_result(late, report(90_000, fvu=0.3))


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(store: Store) -> None:
    it = desk(store)
    ticket = take(it)
    assert not it.on_result(ticket, report(5_000, fvu=0.5, loss=float("nan")))
    assert status(it, ticket) == "diverged"
    assert "loss is not finite" in it.log.state.trials[ticket.trial].reason


def test_a_failure_is_tried_again_and_the_last_one_is_final(store: Store) -> None:
    it = desk(store)
    first = take(it)
    it.on_result(first, {"kind": "failed", "reason": "ValueError: x", "traceback": "..."})
    again = take(it)
    assert (again.trial, again.epoch) == (first.trial, 2)
    it.on_result(again, {"kind": "failed", "reason": "ValueError: x", "traceback": "..."})
    assert status(it, again) == "failed"


def test_what_would_only_fail_the_same_way_is_not_tried_again(store: Store) -> None:
    it = desk(store)
    ticket = take(it)
    it.on_result(ticket, {"kind": "failed", "reason": "export differs", "final": True})
    assert status(it, ticket) == "failed"


def test_out_of_memory_is_tried_once_more_at_half_the_pack(store: Store) -> None:
    it = desk(store)
    ticket = take(it)
    assert ticket.max_members == 4
    result = {"kind": "failed", "reason": "out of memory", "out_of_memory": True}
    it.on_result(ticket, result)
    again = take(it)
    assert (again.trial, again.max_members) == (ticket.trial, 2)
    it.on_result(again, result)
    assert status(it, again) == "failed"


def test_preemptions_are_never_counted(store: Store) -> None:
    it = desk(store)
    for epoch in range(1, 30):
        ticket = take(it)
        assert (ticket.trial, ticket.epoch) == ("t0000", epoch)
        it.on_result(ticket, {"kind": "preempted", "reason": "asked to stop"})
    assert it.log.state.trials["t0000"].num_preemptions == 29
    assert it.log.state.trials["t0000"].num_failures == 0


def test_a_process_that_dies_in_one_place_for_ever_is_given_up(store: Store) -> None:
    it = desk(store)
    deaths = 0
    while it.log.refresh().trials.get("t0000") is None or not it.log.state.trials["t0000"].ended:
        ticket = take(it)
        assert ticket.trial == "t0000"
        it.on_lost(ticket, "its trial process is gone")
        deaths += 1
        assert deaths < 100
    assert it.log.state.trials["t0000"].status == "failed"
    assert "died 20 times in a row" in it.log.state.trials["t0000"].reason


def test_a_driver_that_was_silent_loses_its_trials_and_its_late_words_change_nothing(
    store: Store,
) -> None:
    stale, fresh = desk(store), desk(store)
    lost = take(stale)
    stale.on_result(lost, report(5_000, fvu=0.5))
    clock = Clock()
    fresh.leases._clock = clock
    for _ in range(3):
        take(fresh)
    assert fresh.next() is None, "the silence is young"
    clock.now = 21.0
    taken = take(fresh)
    assert (taken.trial, taken.epoch) == (lost.trial, 2)
    assert not stale.on_result(lost, finished("from the stale driver"))
    fresh.on_result(taken, finished("from the fresh driver"))
    trial = fresh.log.refresh().trials[lost.trial]
    assert (trial.status, trial.artefact) == ("finished", "from the fresh driver")


def test_an_end_that_was_won_but_not_logged_is_announced_by_the_next_driver(store: Store) -> None:
    dead = desk(store)
    ticket = take(dead)
    end = {"event": "stopped", "trial": ticket.trial, "epoch": 1, "rule": "asha", "rung": 10_000}
    numbers = {"metric": "fvu", "value": 0.5, "cutoff": 0.2, "against": 3}
    words = {"reason": "fvu 0.5", "tokens": 10_000}
    key = store.layout.end("desk", ticket.trial)
    assert store.create_json(key, {**end, **numbers, **words})
    dead.release_all("killed")
    fresh = desk(store)
    assert take(fresh).trial != ticket.trial
    assert status(fresh, ticket) == "stopped"


def test_a_claim_whose_driver_died_before_it_spoke_is_announced_and_run(store: Store) -> None:
    config = {"architecture": "topk", "d_sae": 64, "k": 4, "lr": 0.123}
    store.create_json(store.layout.claim("desk", "t0000"), {"number": 0, "config": config})
    ticket = take(desk(store))
    assert (ticket.trial, ticket.config["lr"]) == ("t0000", 0.123)


def test_no_trial_is_suggested_when_the_budget_is_spent(store: Store) -> None:
    it = desk(store, "budget: {usd: 0.01}\n")
    ticket = take(it)
    started = {"node": "n", "pack": "p", "tokens": 0, "usd_per_hour": 100.0}
    it.on_result(ticket, {"kind": "started", "started": started})
    it.on_result(ticket, report(5_000, fvu=0.5))
    assert it.next() is None
    assert it.log.refresh().closed is not None
    it.on_result(ticket, finished("a"))
    assert Counter(t.status for t in it.log.state.trials.values()) == {"finished": 1}
    assert isinstance(it.next(), Done)


def test_a_sweep_that_cannot_run_here_gives_its_trials_back(store: Store) -> None:
    it = desk(store)
    ticket = take(it)
    it.on_result(ticket, {"kind": "unusable", "reason": "no such model"})
    assert status(it, ticket) == "queued"
    assert it.unusable == "no such model"
    assert isinstance(it.next(), Done)


def test_a_driver_that_ended_is_gone_even_if_its_start_was_lost_from_the_log(store: Store) -> None:
    lease = {"holder": "driver-lost", "epoch": 1}
    assert store.create_json(store.layout.lease("desk", "t0000", 1), lease)
    it = desk(store)
    it.log.append(DriverEnded(driver="driver-lost", reason="killed"))
    ticket = take(it)
    assert (ticket.trial, ticket.epoch) == ("t0000", 2)


def test_a_report_on_its_way_does_not_keep_a_trial_from_saving_when_it_is_asked_back(
    store: Store,
) -> None:
    one = desk(store)
    first, second = take(one), take(one)
    one.draining = one.asked_back = True
    assert one.on_result(first, report(5000, 0.9)), "its next result is what it saved"
    saved = {"kind": "preempted", "reason": "asked to stop", "checkpoint_tokens": 5500}
    assert not one.on_result(first, saved)
    assert one.log.refresh().trials[first.trial].checkpoint_tokens == 5500
    one.asked_back = False
    assert not one.on_result(second, report(5000, 0.9)), "nobody asked it: it just ends"
