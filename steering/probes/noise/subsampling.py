"""Fewer negatives, or fewer tokens an item: which rows to train on.

Shape suffixes: N = rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array, as_labels

__all__ = ["at_most_per_item", "subsample_negatives"]


def subsample_negatives(y: Any, ratio: float, *, seed: int = 0) -> Array:
    """Row numbers, rising: every positive, and `ratio` negatives for each, drawn at random.

    With several labels a row without any is a negative. AUROC does not change by it in
    expectation, what a score of 0 means does: tune thresholds on rows that were not thinned.

    Raises:
        BadSteeringInput: a ratio that is not positive, or no positive row.
    """
    y_NL = as_labels(y, len(y), "y")
    is_positive_N = y_NL.any(axis=1)
    if ratio <= 0 or not is_positive_N.any():
        raise BadSteeringInput(
            f"ratio={ratio} must be above 0, and there must be positives to count from; there are "
            f"{int(is_positive_N.sum())}"
        )
    negatives = np.flatnonzero(~is_positive_N)
    wanted = min(len(negatives), max(1, round(ratio * int(is_positive_N.sum()))))
    drawn = np.random.default_rng(seed).choice(negatives, wanted, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(is_positive_N), drawn]))


def at_most_per_item(items: Sequence[Any] | Array, most: int, *, seed: int = 0) -> Array:
    """Row numbers, rising: at most so many rows of each item, drawn at random.

    Raises:
        BadSteeringInput: most below 1.
    """
    if most < 1:
        raise BadSteeringInput(f"most={most} rows an item must be at least 1")
    _, item_N = np.unique(np.asarray(items, dtype=str), return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(item_N)), item_N))
    sorted_N = item_N[order]
    place_N = np.arange(len(order)) - np.searchsorted(sorted_N, sorted_N)
    return np.sort(order[place_N < most])
