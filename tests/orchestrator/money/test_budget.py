"""Budgets: dollars of all trials, hours in which somebody worked, what follows at 80 and 100%."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import AnyEvent, BudgetWarned, DriverEnded, DriverStarted
from orchestrator.log.state import SweepState, fold
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.money.budget import budget_use
from orchestrator.money.machine_time import LAST_WORD_HOLDS_S
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.desk import Desk, Done
from orchestrator.trials.ticket import Ticket

HOUR_S = 3600.0
TEXT = """
name: desk
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: 4, lr: {choice: [1.0e-4, 3.0e-4, 1.0e-3]}}
search: {sampler: grid}
budget: {usd: 10}
"""
ASHA = "early_stop: {scheduler: asha, grace: 10k, reduction: 3}\n"


def life(
    writer: str, begin_h: float, end_h: float | None = None, by: str = "", host: str = "h"
) -> list[AnyEvent]:
    """A driver's first and last word; `by` is who says that it ended, itself by default."""
    started = DriverStarted(host=host, pid=1, writer=writer, seq=1, at=begin_h * HOUR_S)
    if end_h is None:
        return [started]
    author, seq = (by, 1) if by else (writer, 2)
    ended = DriverEnded(driver=writer, reason="x", writer=author, seq=seq, at=end_h * HOUR_S)
    return [started, ended]


def hours(events: list[AnyEvent], now_h: float, alive: tuple[str, ...] = ()) -> float:
    return budget_use(fold(events), None, 99.0, now_h * HOUR_S, alive).hours


def test_a_night_in_which_nothing_ran_takes_nothing_off_the_hours() -> None:
    assert hours([*life("a", 1, 3), *life("b", 15, 16)], now_h=20) == pytest.approx(3)


def test_drivers_side_by_side_count_once() -> None:
    both = [*life("a", 1, 4), *life("b", 2, 6, host="other")]
    assert hours(both, now_h=20) == pytest.approx(5)


def test_a_driver_that_lives_counts_until_now_if_one_knows_it() -> None:
    assert hours(life("a", 1), now_h=9, alive=("a",)) == pytest.approx(8)


def test_a_driver_that_vanished_counts_no_longer_than_its_last_word_holds() -> None:
    little = LAST_WORD_HOLDS_S / HOUR_S
    assert hours(life("a", 1), now_h=9) == pytest.approx(little)
    found_a_week_later = life("a", 1, 150, by="b")
    assert hours(found_a_week_later, now_h=200) == pytest.approx(little)
    assert hours(life("a", 1, 1.01, by="supervisor"), now_h=200) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("usd", "warns", "is_spent"), [(7.9, False, False), (8.0, True, False), (10.0, True, True)]
)
def test_a_person_is_warned_at_80_percent_and_nothing_is_begun_at_100(
    usd: float, warns: bool, is_spent: bool
) -> None:
    use = budget_use(SweepState(), 10.0, None, 0.0)
    use = type(use)(usd, 10.0, 0.0, None)
    assert (use.warning is not None, use.spent is not None) == (warns, is_spent)
    assert not warns or f"${usd:.2f} of $10.00" in str(use.warning)


def test_without_a_limit_nothing_is_said() -> None:
    use = budget_use(SweepState(), None, None, 0.0)
    assert (use.share, use.parts, use.warning, use.spent) == (None, (), None, None)


# The desk


def desk(folder: Path, changes: str = "") -> Desk:
    store = Store.open(str(folder / "store"))
    text = TEXT + changes
    Queue(store).submit(parse_sweep(text), text)
    log = SweepLog(store, "desk", LogWriter(store, "desk"))
    log.append(DriverStarted(host="here", pid=1))
    return Desk(store, "desk", parse_sweep(text), log, max_members=4)


def begin(it: Desk) -> Ticket:
    ticket = it.next()
    assert ticket is not None and not isinstance(ticket, Done)
    started = {"node": "n", "pack": "p", "tokens": 0, "usd_per_hour": HOUR_S}
    assert it.on_result(ticket, {"kind": "started", "started": started})
    return ticket


def report(tokens: int, usd: float) -> dict[str, Any]:
    """At a dollar a second."""
    metrics = {"fvu": 0.5, "l0": 4.0, "loss": 1.0, "dead_fraction": 0.0}
    return {
        "kind": "report", "tokens": tokens, "metrics": metrics, "busy_seconds": usd, "at": {},
    }  # fmt: skip


def warnings(it: Desk) -> list[str]:
    state = it.log.refresh()
    return [event.reason for event in state.recent if isinstance(event, BudgetWarned)]


def test_the_warning_is_said_once(tmp_path: Path) -> None:
    it = desk(tmp_path)
    ticket = begin(it)
    for tokens, usd in ((1000, 7.0), (2000, 8.5), (3000, 9.0)):
        it.on_result(ticket, report(tokens, usd))
    it.on_result(ticket, report(4000, 9.1))
    assert warnings(it) == ["$8.50 of $10.00 used"]


def test_a_running_trial_goes_on_to_its_next_rung_and_is_let_go_there(tmp_path: Path) -> None:
    it = desk(tmp_path, ASHA)
    ticket = begin(it)
    assert it.on_result(ticket, report(4_000, 11.0))
    assert it.next() is None  # nothing further is begun
    assert it.on_result(ticket, report(9_000, 12.0))
    assert not it.on_result(ticket, report(10_000, 13.0))
    trial = it.log.refresh().trials[ticket.trial]
    assert (trial.status, trial.tokens) == ("stopped", 10_000)
    assert trial.stop is not None and trial.stop.rule == "budget"
    assert "$13.00 of $10.00" in trial.reason
    assert isinstance(it.next(), Done)


def test_a_trial_without_rungs_runs_to_its_end(tmp_path: Path) -> None:
    it = desk(tmp_path, "early_stop: {scheduler: none}\n")
    ticket = begin(it)
    for tokens in range(10_000, 91_000, 10_000):
        assert it.on_result(ticket, report(tokens, 11.0))
    assert it.log.refresh().trials[ticket.trial].status == "running"
