"""Bootstrap intervals and verdicts for comparisons that were made in pairs. numpy only.

Resampled are units (items, prompts, seeds), never single rows of one unit: rows of a unit are not
independent (cluster bootstrap; Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steering.errors import BadSteeringInput

__all__ = ["Interval", "Verdict", "interval_of", "mean_interval", "paired_interval", "verdict"]

Array = np.ndarray[Any, Any]
Verdict = Literal["first", "second", "tie"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval (percentiles)."""

    estimate: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval_of(
    statistic: Callable[[Array], float],
    units: Sequence[Any] | Array,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The statistic of all rows, and its spread over resampled units.

    Args:
        statistic: takes row numbers (int array, repeats allowed); may return nan, which is left out
            of the interval (a resample with one class only has no AUROC).
        units: for each row the unit it belongs to.

    Raises:
        BadSteeringInput: fewer than two units.
    """
    _, unit_N = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    count = int(unit_N.max()) + 1 if len(unit_N) else 0
    if count < 2:
        raise BadSteeringInput(
            f"{count} units are too few for an interval; at least two are needed"
        )
    order = np.argsort(unit_N, kind="stable")
    rows_by_unit = np.split(order, np.cumsum(np.bincount(unit_N))[:-1])
    random = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(np.concatenate([rows_by_unit[u] for u in random.integers(0, count, count)]))
            for _ in range(resamples)
        ]
    )
    values = values[~np.isnan(values)]
    estimate = float(statistic(np.arange(len(unit_N))))
    if not len(values):
        return Interval(estimate, float("nan"), float("nan"), confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), confidence)


def mean_interval(
    values: Sequence[float] | Array,
    units: Sequence[Any] | Array | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of the values; each is a unit of its own unless `units` says otherwise."""
    value_N = np.asarray(values, dtype=float)
    return interval_of(
        lambda rows: float(value_N[rows].mean()),
        range(len(value_N)) if units is None else units,
        seed=seed,
        confidence=confidence,
    )


def paired_interval(
    first: Sequence[float] | Array,
    second: Sequence[float] | Array,
    units: Sequence[Any] | Array | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of first - second, where both were measured on the same thing, place by place.

    Raises:
        BadSteeringInput: different lengths, or fewer than two units.
    """
    if len(first) != len(second):
        raise BadSteeringInput(f"pairs need equal lengths; got {len(first)} and {len(second)}")
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return mean_interval(differences, units, seed=seed, confidence=confidence)


def verdict(difference: Interval, *, within: float = 0.0) -> Verdict:
    """Which of two is larger: a tie where the interval of first - second holds a value that small.

    Args:
        within: differences up to this size count as none.
    """
    if difference.low > within:
        return "first"
    return "second" if difference.high < -within else "tie"
