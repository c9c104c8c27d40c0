"""Slots are shared by priority, then equally, then to the least served; none is wasted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.serving.shares import Claim, shares


def claim(
    sweep: str, *, per_device: float = 4, demand: int = 100, priority: int = 0, served: float = 0
) -> Claim:
    return Claim(sweep, priority, per_device, demand, served)


claims_lists = st.lists(
    st.builds(
        Claim,
        sweep=st.uuids().map(str),
        priority=st.integers(-1, 1),
        slots_per_device=st.integers(1, 16).map(float),
        demand=st.integers(0, 40),
        served_device_s=st.floats(0, 1e6),
    ),
    max_size=6,
    unique_by=lambda c: c.sweep,
)


def used(claims: list[Claim], slots: dict[str, int]) -> float:
    return sum(slots[c.sweep] / c.slots_per_device for c in claims)


@given(claims_lists, st.integers(1, 8))
def test_nobody_gets_more_than_it_can_use_and_all_fit(claims: list[Claim], devices: int) -> None:
    slots = shares(claims, devices)
    assert all(0 <= slots[c.sweep] <= c.demand for c in claims)
    assert used(claims, slots) <= devices + 1e-6


@given(claims_lists, st.integers(1, 8))
def test_no_slot_stays_empty_that_somebody_could_use(claims: list[Claim], devices: int) -> None:
    slots = shares(claims, devices)
    left = devices - used(claims, slots)
    hungry = [c for c in claims if slots[c.sweep] < c.demand]
    assert all(1 / c.slots_per_device > left - 1e-6 for c in hungry)


@given(claims_lists, st.integers(1, 8))
def test_lower_priorities_change_nothing_for_higher_ones(claims: list[Claim], devices: int) -> None:
    top = [c for c in claims if c.priority == 1]
    slots = shares(claims, devices)
    assert shares(top, devices) == {c.sweep: slots[c.sweep] for c in top}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(1, 4))
def test_equal_sweeps_differ_by_one_slot_at_most_unless_one_needs_less(
    demands: list[int], devices: int
) -> None:
    claims = [claim(f"s{i}", demand=demand) for i, demand in enumerate(demands)]
    slots = shares(claims, devices)
    wanting = [slots[c.sweep] for c in claims if slots[c.sweep] < c.demand]
    assert max(slots.values()) <= min(wanting, default=10**9) + 1


@given(claims_lists, st.integers(1, 8))
def test_the_order_in_which_sweeps_are_named_does_not_matter(
    claims: list[Claim], devices: int
) -> None:
    assert shares(claims, devices) == shares(claims[::-1], devices)


def test_a_small_sweep_gets_a_slot_beside_a_backlog_that_fills_the_machine() -> None:
    big, small = claim("big", demand=1000, per_device=16), claim("small", demand=1)
    assert shares([big, small], 1) == {"big": 12, "small": 1}


def test_higher_priority_comes_first_up_to_what_it_can_use() -> None:
    urgent, other = claim("urgent", priority=1, demand=3), claim("other")
    assert shares([other, urgent], 1) == {"urgent": 3, "other": 1}
    assert shares([other, claim("urgent", priority=1)], 1) == {"urgent": 4, "other": 0}


def test_what_equal_shares_leave_over_goes_to_the_least_served() -> None:
    claims = [claim("a", served=9), claim("b", served=1), claim("c", served=5)]
    assert shares(claims, 1) == {"a": 1, "b": 2, "c": 1}


def test_more_sweeps_than_slots_take_turns() -> None:
    fresh, served = claim("fresh", per_device=1), claim("served", per_device=1, served=60)
    assert shares([served, fresh], 1) == {"fresh": 1, "served": 0}


def test_a_trial_that_fills_a_device_takes_turns_with_a_backlog_of_small_ones() -> None:
    wide = claim("wide", per_device=1, demand=2, served=5)
    assert shares([claim("small", per_device=16, served=9), wide], 1) == {"small": 0, "wide": 1}
    assert shares([claim("small", per_device=16, served=1), wide], 1) == {"small": 16, "wide": 0}
