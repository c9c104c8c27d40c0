"""Shuffled labels: a probe that still finds something has seen its test items in training.

Labels move between whole items, and an item that has rows in two parts keeps one label in both. So
features that only tell items apart score 0.5 where the split is by item, and more where it leaks.
Shape suffixes: N = rows, L = labels, S = shuffles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.controls.seeds import student_t
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec
from steering.probes.matrices import Array
from steering.probes.method import ProbeMethod
from steering.probes.parts import Judge, Parts, fit_parts, macro_auroc

__all__ = ["ShuffledControl", "shuffled_control", "shuffled_parts"]

EXPECTED = 0.5
CONFIDENCE = 0.99
"""One false alarm in a hundred reports."""
MIN_SHUFFLES = 3


@dataclass(frozen=True)
class ShuffledControl:
    """Test AUROC of probes that were trained on, and are judged by, shuffled labels."""

    values: tuple[float, ...]
    """Macro AUROC of each shuffle."""
    mean: float
    low: float
    """Where the mean is expected without a leak, with `high`: 0.5 and its 99% interval."""
    high: float
    one_low: float
    """Where a single AUROC is expected when there is nothing to find, with `one_high`: a real
    probe's number has to lie above."""
    one_high: float

    @property
    def leaks(self) -> bool:
        """Whether the mean lies outside its interval."""
        return not self.low <= self.mean <= self.high

    @property
    def verdict(self) -> Literal["leak?", "as expected"]:
        """What the report says."""
        return "leak?" if self.leaks else "as expected"

    def as_json(self) -> dict[str, Any]:
        """Every number and the verdict."""
        return {
            "values": list(self.values),
            "mean": self.mean,
            "expected": [self.low, self.high],
            "expected_of_one": [self.one_low, self.one_high],
            "verdict": self.verdict,
        }


def shuffled_control(
    method: str | ProbeMethod,
    parameters: Mapping[str, Any] | None,
    parts: Parts,
    *,
    shuffles: int = 5,
    seed: int = 0,
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    judge: Judge = macro_auroc,
) -> ShuffledControl:
    """Fit, choose and test on shuffled labels, several times.

    Raises:
        BadSteeringInput: fewer than three shuffles; labels that no part can be measured with.
    """
    if shuffles < MIN_SHUFFLES:
        raise BadSteeringInput(f"shuffles={shuffles} are too few; at least {MIN_SHUFFLES}")
    values = []
    for number in range(shuffles):
        shuffled = shuffled_parts(parts, seed=seed * 1000 + number)
        fitted = fit_parts(method, parameters, shuffled, imbalance=imbalance, seed=number)
        values.append(judge(fitted.scores(shuffled.test.x), shuffled.test.y_NL))
    measured = float(np.std(values, ddof=1))
    spread = max(measured, _null_spread(parts))
    half = student_t(shuffles - 1, CONFIDENCE) * spread / math.sqrt(shuffles)
    one = 1.96 * spread
    return ShuffledControl(
        tuple(values),
        float(np.mean(values)),
        max(0.0, EXPECTED - half),
        min(1.0, EXPECTED + half),
        max(0.0, EXPECTED - one),
        min(1.0, EXPECTED + one),
    )


def _null_spread(parts: Parts) -> float:
    """Standard deviation of an AUROC without any relation (Mann and Whitney 1947), by test items.

    The mean over labels varies less, by the root of their number if they are independent.
    """
    items = len(set(parts.test.items.tolist()))
    share_L = parts.test.y_NL.mean(axis=0)
    positive_L = np.maximum(items * share_L, 1.0)
    negative_L = np.maximum(items * (1 - share_L), 1.0)
    spread_L = np.sqrt((positive_L + negative_L + 1) / (12 * positive_L * negative_L))
    return float(spread_L.mean() / math.sqrt(len(spread_L)))


def shuffled_parts(parts: Parts, *, seed: int) -> Parts:
    """The same features with labels moved between items that are in the same parts.

    So each part keeps its number of positive items. Labels that differ within items keep their
    runs: the rows' labels move in whole blocks.
    """
    sizes = [len(part.items) for part in parts.all]
    item_N = np.concatenate([part.items for part in parts.all])
    part_N = np.repeat(np.arange(3), sizes)
    y_NL = np.concatenate([part.y_NL for part in parts.all])
    names, unit_N = np.unique(item_N, return_inverse=True)
    in_part = np.zeros((len(names), 3), dtype=bool)
    in_part[unit_N, part_N] = True
    kind_U = in_part @ np.array([1, 2, 4])
    random = np.random.default_rng(seed)
    new_NL = y_NL.copy()
    for kind in np.unique(kind_U):
        _shuffle(new_NL, y_NL, unit_N, np.flatnonzero(kind_U == kind), random)
    train, validation, test = np.split(new_NL, np.cumsum(sizes)[:-1])
    return parts.with_labels(train, validation, test)


def _shuffle(
    new_NL: Array, y_NL: Array, unit_N: Array, units: Array, random: np.random.Generator
) -> None:
    """Move labels between these items, in place."""
    order = np.argsort(unit_N, kind="stable")
    starts = np.searchsorted(unit_N[order], units)
    ends = np.searchsorted(unit_N[order], units, side="right")
    rows_by_unit = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    source = random.permutation(len(units))
    if all((y_NL[rows] == y_NL[rows[0]]).all() for rows in rows_by_unit):
        for rows, other in zip(rows_by_unit, source, strict=True):
            new_NL[rows] = y_NL[rows_by_unit[other][0]]
        return
    moved = np.concatenate([rows_by_unit[other] for other in source])
    new_NL[np.concatenate(rows_by_unit)] = y_NL[moved]
