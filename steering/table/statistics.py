"""Intervals over prompts, and exact tests between conditions. numpy and scipy.

Cells of one prompt (its targets and seeds) are not independent: what is resampled are prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import RESAMPLES, Interval

__all__ = ["McNemar", "cluster_mean", "cluster_ratio", "mcnemar", "paired_difference"]

Array = np.ndarray[Any, Any]


def cluster_mean(
    values: Array, units: Sequence[Any] | Array, *, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Mean of the values that are not nan, with its interval over resampled units.

    `interval_of` of the same mean, from sums a unit: a table has hundreds of them.
    """
    value_N = np.asarray(values, dtype=float)
    is_there_N = ~np.isnan(value_N)
    return cluster_ratio(
        np.where(is_there_N, value_N, 0.0), is_there_N, units, seed=seed, confidence=confidence
    )


def cluster_ratio(
    above: Array,
    below: Array,
    units: Sequence[Any] | Array,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """sum(above) / sum(below), with its interval over resampled units; nan where that is 0 / 0.

    Raises:
        BadSteeringInput: fewer than two units.
    """
    _, unit_N = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    count = int(unit_N.max()) + 1 if len(unit_N) else 0
    if count < 2:
        raise BadSteeringInput(
            f"{count} prompts are too few for an interval over prompts; at least two are needed"
        )
    above_U = np.bincount(unit_N, np.asarray(above, dtype=float), minlength=count)
    below_U = np.bincount(unit_N, np.asarray(below, dtype=float), minlength=count)
    drawn_RU = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    below_R = below_U[drawn_RU].sum(axis=1)
    usable_R = below_R > 0
    ratio_R = above_U[drawn_RU].sum(axis=1)[usable_R] / below_R[usable_R]
    estimate = above_U.sum() / below_U.sum() if below_U.sum() else float("nan")
    if not len(ratio_R):
        return Interval(float("nan"), float("nan"), float("nan"), confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratio_R, [tail, 1 - tail])
    return Interval(float(estimate), float(low), float(high), confidence)


def paired_difference(
    first: Array, second: Array, units: Sequence[Any] | Array, *, seed: int = 0
) -> Interval:
    """Mean of first - second over cells that both have, with its interval over units.

    Raises:
        BadSteeringInput: different lengths, or fewer than two units.
    """
    if len(first) != len(second):
        raise BadSteeringInput(f"pairs need equal lengths; got {len(first)} and {len(second)}")
    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return cluster_mean(apart, units, seed=seed)


@dataclass(frozen=True)
class McNemar:
    """The exact test of McNemar (1947) on paired yes or no."""

    only_first: int
    """Pairs where only the first is yes."""
    only_second: int
    p_value: float
    """Two-sided, binomial with 1/2 over the pairs that differ; 1 if none does."""


def mcnemar(first: Array, second: Array) -> McNemar:
    """Whether one of two says yes more often. It takes pairs for independent, which cells of one
    prompt are not: the interval of the difference is the number to go by.

    Raises:
        BadSteeringInput: different lengths.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise BadSteeringInput(f"pairs need equal lengths; got {len(first)} and {len(second)}")
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((one & ~other).sum()), int((~one & other).sum())
    num_differing = only_first + only_second
    p_value = float(binomtest(only_first, num_differing).pvalue) if num_differing else 1.0
    return McNemar(only_first, only_second, p_value)
