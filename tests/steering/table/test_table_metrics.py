"""M1, M2, M3 of the table: by hand, by brute force, and on planted generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steering.errors import BadSteeringInput
from steering.intervals import interval_of
from steering.table.metrics import (
    READINGS,
    Cells,
    GroupSpace,
    Reading,
    changed,
    directions,
    gained,
    lost,
)
from steering.table.statistics import cluster_mean, cluster_ratio, mcnemar, paired_difference

Array = np.ndarray[Any, Any]

POINTS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
SPACE = GroupSpace(POINTS, "euclidean")


def cells(before: list[list[float]], after: list[list[float]], target: list[int]) -> Cells:
    return Cells(np.array(before), np.array(after), np.array(target), np.arange(len(target)) // 2)


def test_changes_gains_and_losses_by_hand() -> None:
    right, up, left = POINTS.tolist()
    found = cells(
        [right, right, up, up, left, right], [up, right, left, up, up, left], [1, 1, 1, 1, 2, 1]
    )
    assert changed(SPACE, found).tolist() == [True, False, True, False, True, True]
    assert gained(SPACE, found).tolist() == [True, False, False, False, False, False]
    assert lost(SPACE, found).tolist() == [False, False, True, False, True, False]


def test_the_three_readings_of_a_direction_by_hand() -> None:
    # From (1, 0) to (1, 1), towards group 1 at (0, 1); the mean of the groups is (0, 1/3).
    found = cells([[1.0, 0.0]], [[1.0, 1.0]], [1])
    literal = directions(SPACE, found, "literal")
    centred = directions(SPACE, found, "centred")
    towards = directions(SPACE, found, "towards")
    assert literal.distance_N[0] == pytest.approx(0.0)
    assert centred.distance_N[0] == pytest.approx(0.0)
    assert towards.distance_N[0] == pytest.approx(1 - 1 / np.sqrt(2))
    assert [one.hit_N[0] for one in (literal, centred, towards)] == [1.0, 1.0, 1.0]


def brute_force(space: GroupSpace, cells: Cells, reading: Reading) -> tuple[list[float], list[int]]:
    """Section 6 of the reference, word by word."""
    mean = np.mean(space.point_GE, axis=0)
    distances, hits = [], []
    for y0, yc, t in zip(cells.before_NE, cells.after_NE, cells.target_N, strict=True):
        delta = yc - y0
        apart = []
        for e in space.point_GE:
            u = {"literal": e, "centred": e - mean, "towards": e - y0}[reading]
            apart.append(1 - float(np.dot(delta, u) / np.sqrt(np.dot(delta, delta) * np.dot(u, u))))
        distances.append(apart[t])
        hits.append(int(np.argmin(apart) == t))
    return distances, hits


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("reading", READINGS)
def test_metrics_equal_brute_force(reading: Reading, distance: Any) -> None:
    random = np.random.default_rng(3)
    space = GroupSpace(random.normal(size=(5, 7)), distance)
    some = Cells(
        random.normal(size=(60, 7)),
        random.normal(size=(60, 7)),
        random.integers(0, 5, 60),
        np.arange(60) // 6,
    )
    found = directions(space, some, reading)
    expected = brute_force(space, some, reading)
    assert found.distance_N == pytest.approx(expected[0])
    assert found.hit_N.tolist() == expected[1]

    def nearest(one: Array) -> int:
        if distance == "euclidean":
            return int(np.argmin([np.linalg.norm(one - e) for e in space.point_GE]))
        cosines = [one @ e / np.linalg.norm(one) / np.linalg.norm(e) for e in space.point_GE]
        return int(np.argmax(cosines))

    before = [nearest(one) for one in some.before_NE]
    after = [nearest(one) for one in some.after_NE]
    target = some.target_N.tolist()
    rows = list(zip(before, after, target, strict=True))
    assert changed(space, some).tolist() == [a != b for b, a, _ in rows]
    assert gained(space, some).tolist() == [a == t and b != t for b, a, t in rows]
    assert lost(space, some).tolist() == [b == t and a != t for b, a, t in rows]


def test_nothing_moved_has_no_direction_and_is_counted() -> None:
    found = cells([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 1e-12]], [1, 1])
    for reading in READINGS:
        found_directions = directions(SPACE, found, reading)
        assert found_directions.num_excluded == 2
        assert np.isnan(found_directions.hit_N).all()


def test_towards_has_no_direction_where_the_answer_was_already_there() -> None:
    found = cells([[0.0, 1.0]], [[1.0, 1.0]], [1])
    assert directions(SPACE, found, "towards").num_excluded == 1
    assert directions(SPACE, found, "literal").num_excluded == 0


def test_an_answer_without_text_is_changed_and_never_right() -> None:
    nan = [np.nan, np.nan]
    found = cells([[1.0, 0.0], [0.0, 1.0]], [nan, nan], [1, 1])
    assert changed(SPACE, found).tolist() == [True, True]
    assert gained(SPACE, found).tolist() == [False, False]
    assert lost(SPACE, found).tolist() == [False, True]
    assert directions(SPACE, found, "literal").num_excluded == 2


def test_two_groups_are_too_few() -> None:
    with pytest.raises(BadSteeringInput, match="at least three groups; got 2"):
        GroupSpace(POINTS[:2], "euclidean")


def test_an_oracle_gains_everything_and_points_to_its_target() -> None:
    random = np.random.default_rng(0)
    target = np.arange(90) % 3
    before = POINTS[(target + 1 + random.integers(0, 2, 90)) % 3] + 0.05 * random.normal(
        size=(90, 2)
    )
    found = Cells(before, POINTS[target], target, np.arange(90) // 9)
    assert gained(SPACE, found).all()
    assert not lost(SPACE, found).any()
    towards = directions(SPACE, found, "towards")
    assert np.nanmean(towards.distance_N) == pytest.approx(0.0, abs=1e-9)
    assert np.nanmean(towards.hit_N) == 1.0


def test_a_generator_that_ignores_its_target_is_at_chance() -> None:
    random = np.random.default_rng(1)
    before, after = random.normal(size=(6000, 2)), random.normal(size=(6000, 2))
    found = Cells(before, after, np.tile(np.arange(3), 2000), np.arange(6000) // 30)
    net = gained(SPACE, found).mean() - lost(SPACE, found).mean()
    assert net == pytest.approx(0.0, abs=0.03)
    # Over all targets a change is to the right group in one of K cases, whatever it is.
    assert gained(SPACE, found).mean() == pytest.approx(changed(SPACE, found).mean() / 3, abs=0.02)
    assert np.nanmean(directions(SPACE, found, "literal").distance_N) == pytest.approx(1, abs=0.05)


def test_cluster_means_equal_the_general_bootstrap() -> None:
    random = np.random.default_rng(2)
    values, units = random.normal(size=80), random.integers(0, 9, 80)
    fast = cluster_mean(values, units)
    general = interval_of(lambda rows: float(values[rows].mean()), units.tolist())
    assert fast.estimate == pytest.approx(general.estimate)
    assert (fast.low, fast.high) == pytest.approx((general.low, general.high), abs=0.02)


def test_ratios_leave_out_resamples_that_have_nothing_below() -> None:
    found = cluster_ratio(np.array([1, 0]), np.array([1, 0]), ["a", "b"])
    assert (found.estimate, found.low, found.high) == (1.0, 1.0, 1.0)
    nothing = cluster_ratio(np.zeros(2), np.zeros(2), ["a", "b"])
    assert np.isnan(nothing.estimate)


def test_one_prompt_has_no_interval() -> None:
    with pytest.raises(BadSteeringInput, match="1 prompts are too few"):
        cluster_mean(np.ones(4), ["a"] * 4)


def test_intervals_over_prompts_cover_the_truth() -> None:
    random = np.random.default_rng(5)
    hits, tries, truth = 0, 200, 0.3
    for _ in range(tries):
        prompt_rate = np.clip(truth + 0.15 * random.normal(size=24), 0, 1)
        values = (random.random((24, 9)) < prompt_rate[:, None]).astype(float)
        found = cluster_mean(values.ravel(), np.repeat(np.arange(24), 9))
        hits += found.low <= truth <= found.high
    assert hits / tries > 0.87  # 0.95 with many prompts; percentiles are narrow with 24


def test_pairs_are_told_apart_where_the_prompts_differ_more_than_the_conditions() -> None:
    random = np.random.default_rng(6)
    hard = np.repeat(random.random(20), 6)
    first = (hard + 0.2 > random.random(120)).astype(float)
    difference = paired_difference(hard + 0.1, hard, np.repeat(np.arange(20), 6))
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))
    with pytest.raises(BadSteeringInput, match="equal lengths; got 120 and 3"):
        paired_difference(first, hard[:3], np.arange(120))


def test_mcnemar_counts_pairs_that_differ() -> None:
    first = np.array([True] * 8 + [False] + [True] * 5)
    second = np.array([False] * 8 + [True] + [True] * 5)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (8, 1)
    assert found.p_value == pytest.approx(2 * (1 + 9) / 2**9)  # two-sided, binomial(9, 1/2)
    assert mcnemar(first, first).p_value == 1.0
