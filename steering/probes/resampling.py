"""Bootstrap intervals of several numbers at once, from row weights in place of repeated rows.

The same draws as `steering.intervals.interval_of` with the same seed, so the same intervals; one
pass for all metrics, and a statistic that sorted its rows need not sort them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import Interval
from steering.probes.matrices import Array

__all__ = ["paired_difference", "resampled_intervals", "units_of"]


def units_of(items: Sequence[Any] | Array) -> tuple[Array, int]:
    """For each row the number of its unit, and how many units there are."""
    _, unit_N = np.unique(np.asarray(items, dtype=str), return_inverse=True)
    return unit_N, int(unit_N.max()) + 1 if len(unit_N) else 0


def resampled_intervals(
    statistic: Callable[[Array | None], dict[str, float]],
    items: Sequence[Any] | Array,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Each number of all rows with its percentile interval over resampled items.

    Args:
        statistic: takes row weights (how often each row was drawn), None for each once; a number
            that is nan in a resample is left out of that number's interval.
        resamples: 0 for none; low and high are then nan.

    Raises:
        BadSteeringInput: fewer than two items, and resamples.
    """
    unit_N, count = units_of(items)
    if count < 2 and resamples:
        raise BadSteeringInput(
            f"{count} items are too few for an interval; at least two are needed"
        )
    random = np.random.default_rng(seed)
    estimates = statistic(None)
    drawn: dict[str, list[float]] = {name: [] for name in estimates}
    for _ in range(resamples):
        times_U = np.bincount(random.integers(0, count, count), minlength=count)
        for name, value in statistic(times_U[unit_N].astype(np.float64)).items():
            drawn[name].append(value)
    tail = (1 - confidence) / 2
    out = {}
    for name, estimate in estimates.items():
        values = np.array(drawn[name])
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (np.nan, np.nan)
        out[name] = Interval(estimate, float(low), float(high), confidence)
    return out


def paired_difference(
    first: Callable[[Array | None], float],
    second: Callable[[Array | None], float],
    items: Sequence[Any] | Array,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """first - second, where both are measured on the same resampled items."""
    return resampled_intervals(
        lambda weight_N: {"difference": first(weight_N) - second(weight_N)},
        items,
        seed=seed,
        resamples=resamples,
    )["difference"]
