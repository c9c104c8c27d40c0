"""Authorship verification: are two texts of one group? By the distance of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.intervals import interval_of
from steering.styles.evaluations.embedded import Array, Embedded, EmbeddedParts, distances
from steering.styles.evaluations.outcome import Figure, Outcome

NAME = "verification"

MAX_ANCHORS = 4000
CUTS = 41
"""Quantiles of the validation pairs among which the two thresholds are looked for."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, as many of one group as of two."""

    first_P: Array
    second_P: Array
    is_same_P: Array


def verification(parts: EmbeddedParts, seed: int = 0) -> Outcome:
    """ROC-AUC and c@1 of pairs of test rows; the thresholds are chosen on validation pairs.

    c@1 (Penas and Rodrigo 2011): (1 / n) (n_right + n_unanswered * n_right / n): pairs between the
    two thresholds are not answered. Pairs of one group are of different items where the group has
    several, since an item's rows have more in common than their author. Resampled are the items of
    the pairs' first rows.
    """
    drawn = {name: _pairs(some, seed) for name, some in
             (("validation", parts.validation), ("test", parts.test))}  # fmt: skip
    few = [name for name, pairs in drawn.items() if len(pairs.is_same_P) < 4]
    if few:
        return Outcome.skip(
            NAME, f"the {' and '.join(few)} rows have no two of one group and two of others"
        )
    scores = {
        name: _scores(some, drawn[name], parts) for name, some in
        (("validation", parts.validation), ("test", parts.test))
    }  # fmt: skip
    low, high = best_thresholds(scores["validation"], drawn["validation"].is_same_P)
    score_P, is_same_P = scores["test"], drawn["test"].is_same_P
    units = parts.test.items[drawn["test"].first_P]
    answered_P = (score_P > high) | (score_P < low)
    figures = [
        Figure(
            "roc_auc",
            interval_of(lambda rows: roc_auc(score_P[rows], is_same_P[rows]), units),
            len(score_P),
            0.5,
        ),
        Figure(
            "c_at_1",
            interval_of(lambda rows: c_at_1(score_P[rows], is_same_P[rows], low, high), units),
            len(score_P),
            0.5,
        ),
    ]
    details: dict[str, Any] = {
        "different_above_distance": -low,
        "same_below_distance": -high,
        "answered": float(answered_P.mean()),
        "distance": parts.distance,
    }
    return Outcome(NAME, figures, details=details)


def roc_auc(score_P: Array, is_same_P: Array) -> float:
    """P(a pair of one group scores higher than one of two), ties half; nan without both sorts."""
    from scipy.stats import rankdata

    num_same = int(is_same_P.sum())
    num_other = len(is_same_P) - num_same
    if not num_same or not num_other:
        return float("nan")
    ranks_P = rankdata(score_P)
    return float(
        (ranks_P[is_same_P].sum() - num_same * (num_same + 1) / 2) / (num_same * num_other)
    )


def c_at_1(score_P: Array, is_same_P: Array, low: float, high: float) -> float:
    """Score above `high`: one group; below `low`: two; between them: no answer."""
    right_P = ((score_P > high) & is_same_P) | ((score_P < low) & ~is_same_P)
    num_unanswered = int(((score_P >= low) & (score_P <= high)).sum())
    num, num_right = len(score_P), int(right_P.sum())
    return (num_right + num_unanswered * num_right / num) / num


def best_thresholds(score_P: Array, is_same_P: Array) -> tuple[float, float]:
    """The two thresholds, low <= high, with the highest c@1; of equals the one answering more."""
    cuts = np.unique(np.quantile(score_P, np.linspace(0, 1, CUTS)))
    found = [
        (c_at_1(score_P, is_same_P, low, high), -(after - before), low, high)
        for before, low in enumerate(cuts)
        for after, high in enumerate(cuts)
        if low <= high
    ]
    _, _, low, high = max(found)
    return float(low), float(high)


def _scores(some: Embedded, pairs: Pairs, parts: EmbeddedParts) -> Array:
    first_PE, second_PE = some.embedding_NE[pairs.first_P], some.embedding_NE[pairs.second_P]
    return -distances(first_PE, second_PE, parts.distance)


def _pairs(some: Embedded, seed: int) -> Pairs:
    """For each row (at most MAX_ANCHORS) one of its group and one of another, drawn."""
    random = np.random.default_rng(seed)
    groups, items = some.groups, some.items
    anchors = random.permutation(len(some))[:MAX_ANCHORS]
    first, second, is_same = [], [], []
    for row in anchors:
        own = np.flatnonzero(groups == groups[row])
        elsewhere = own[items[own] != items[row]]
        near = elsewhere if len(elsewhere) else own[own != row]
        far = np.flatnonzero(groups != groups[row])
        if not len(near) or not len(far):
            continue
        first += [row, row]
        second += [random.choice(near), random.choice(far)]
        is_same += [True, False]
    return Pairs(np.array(first, int), np.array(second, int), np.array(is_same, bool))
