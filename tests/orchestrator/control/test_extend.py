"""More trials, longer ones, more money: what changes, for whom, and what does not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.control.extend import More, extend
from orchestrator.control.orders import OrderRefused
from orchestrator.log.events import Closed
from orchestrator.log.sweep_status import sweep_status
from orchestrator.queue import Queue
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import SweepSpec, parse_sweep
from orchestrator.spec.units import BadQuantity
from orchestrator.trials.desk import Done
from tests.orchestrator.control.wanted import (
    GIVEN_BACK,
    GRID,
    TEXT,
    Wanted,
    finished,
    report,
    take,
)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path)


def spec_now(wanted: Wanted) -> SweepSpec:
    return Queue(wanted.store).get("steered").spec


def status(wanted: Wanted) -> str:
    return sweep_status(4, wanted.state())


def test_a_running_driver_takes_over_more_trials(wanted: Wanted) -> None:
    desk = wanted.desk()
    for ticket in [take(desk) for _ in range(4)]:
        desk.on_result(ticket, finished(ticket))
    assert isinstance(desk.next(), Done)
    assert status(wanted) == "finished"
    said = extend(wanted.orders(), More(trials="+2")).said
    assert said == "sweep steered: extended to 6 trials (was 4)"
    assert status(wanted) == "running"
    assert [take(desk).trial, take(desk).trial] == ["t0004", "t0005"]
    assert desk.next() is None


def test_the_same_configurations_come_first_in_an_extended_search(wanted: Wanted) -> None:
    before = [spec_now(wanted).build_sampler().suggest(n, ()) for n in range(4)]
    extend(wanted.orders(), More(trials="9"))
    assert [spec_now(wanted).build_sampler().suggest(n, ()) for n in range(4)] == before


def test_the_unchanged_file_is_still_the_same_sweep_and_takes_nothing_back(wanted: Wanted) -> None:
    extend(wanted.orders(), More(trials="+2", tokens="180k"))
    again, is_new = Queue(wanted.store).submit(parse_sweep(TEXT + "price: {usd_per_hour: 2}\n"), "")
    assert (again.id, is_new) == ("steered", False)
    assert (again.spec.trials, again.spec.price.usd_per_hour) == (6, 2.0)
    as_extended = TEXT.replace("90k", "180k").replace("trials: 4", "trials: 6")
    grace = "asha, grace: 22500, reduction"
    as_extended = as_extended.replace("asha, reduction", grace)
    assert Queue(wanted.store).submit(parse_sweep(as_extended), "")[1] is False
    other = TEXT.replace("90k", "91k")
    assert Queue(wanted.store).submit(parse_sweep(other), other)[0].id == "steered-2"


def test_a_trial_goes_on_to_the_new_length_under_its_next_lease(wanted: Wanted) -> None:
    desk = wanted.desk()
    done, ticket = take(desk), take(desk)
    desk.on_result(done, finished(done))
    desk.on_result(ticket, {**report(22_500), "checkpoint_tokens": 22_000})
    said = extend(wanted.orders(), More(tokens="180k")).said
    assert said == (
        "sweep steered: extended to 180k tokens (was 90k); 1 of its trials has ended as before"
    )
    desk.on_result(ticket, GIVEN_BACK)
    longer = take(desk)
    assert (longer.trial, longer.total_tokens, longer.report_points[-1]) == (
        ticket.trial,
        180_000,
        180_000,
    )
    state = wanted.state()
    assert state.trials[ticket.trial].total_tokens == 180_000
    assert state.trials[done.trial].total_tokens == 90_000


def test_rungs_stay_where_they_were(wanted: Wanted) -> None:
    before = spec_now(wanted).rungs({})
    extend(wanted.orders(), More(tokens="900k"))
    assert spec_now(wanted).rungs({})[: len(before)] == before


def test_an_extension_lifts_a_closing_for_lack_of_money(tmp_path: Path) -> None:
    wanted = Wanted(tmp_path, TEXT + "budget: {usd: 1}\n")
    desk = wanted.desk()
    desk.log.append(Closed(reason="budget: $1.00 of $1.00 are spent"))
    assert isinstance(desk.next(), Done)
    said = extend(wanted.orders(), More(usd="+2")).said
    assert said == "sweep steered: extended to 3 dollars (was 1)"
    assert wanted.state().closed is None
    assert take(desk).trial == "t0000"


def test_extensions_at_once_add_up(wanted: Wanted) -> None:
    people = [wanted.orders(f"{name}@laptop") for name in ("ada", "bob", "eve")]
    threads = [threading.Thread(target=extend, args=(one, More(trials="+2"))) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spec_now(wanted).trials == 10
    assert wanted.state().controls.num_trials == 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (More(), "nothing to extend was named"),
        (More(trials="4"), "got 4, it has 4; write a larger number, or"),
        (More(trials="-1"), "must be a whole number; got '-1'"),
        (More(tokens="80k"), "more tokens than it has; got 80k, it has 90k"),
        (More(usd="5"), "no limit in dollars that could be raised"),
    ],
)
def test_what_extends_nothing_is_refused(wanted: Wanted, more: More, message: str) -> None:
    with pytest.raises(OrderRefused, match=message):
        extend(wanted.orders(), more)
    assert spec_now(wanted) == wanted.queued.spec


def test_quantities_are_read_as_in_a_sweep_file(wanted: Wanted) -> None:
    with pytest.raises(BadQuantity, match="write 16384, 5k, 200M"):
        extend(wanted.orders(), More(tokens="many"))


def test_a_grid_has_no_more_than_it_has(tmp_path: Path) -> None:
    wanted = Wanted(tmp_path, GRID)
    with pytest.raises((OrderRefused, SpecFaults), match="only 2 configurations"):
        extend(wanted.orders(), More(trials="+1"))


def test_a_longer_length_for_trials_that_have_all_ended_is_refused(wanted: Wanted) -> None:
    desk = wanted.desk()
    for ticket in [take(desk) for _ in range(4)]:
        desk.on_result(ticket, finished(ticket))
    with pytest.raises(OrderRefused, match="every trial of sweep steered has ended"):
        extend(wanted.orders(), More(tokens="180k"))
    extend(wanted.orders(), More(tokens="180k", trials="+1"))
    assert take(wanted.desk()).total_tokens == 180_000


def test_a_cancelled_sweep_is_not_extended(wanted: Wanted) -> None:
    wanted.orders().cancel()
    with pytest.raises(OrderRefused, match="was cancelled by ada@laptop"):
        extend(wanted.orders(), More(trials="+1"))
