"""How many of the uncertain rows are of the certain side: best bin estimation (Garg et al. 2021).

Shape suffixes: N = rows, K = certain rows, U = uncertain rows.
"""

from __future__ import annotations

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.logistic import logistic_path
from steering.probes.matrices import Array, Matrix

__all__ = ["best_bin_share", "estimated_share"]

BLOCKS = 10
MIN_CERTAIN = 2 * BLOCKS
MISS, SLACK = 0.1, 0.01
"""delta and gamma of Algorithm 1, as in its authors' experiments."""
C = 0.1


def estimated_share(x: Matrix, is_known_N: Array, *, seed: int = 0) -> float:
    """Share of the known side among the other rows.

    Rows are scored by logistic regression, each half by the one that was trained on the other
    half. It rests on there being scores that only the known side reaches (where the two overlap
    everywhere it is too large), and on the known side's rows being alike, known or not: in a causal
    model the tokens after a sign tell of it too, and count with it.

    Args:
        x: scaled features; neighbouring rows may be of one text and go into the same half.

    Raises:
        BadSteeringInput: fewer than 20 rows of either side.
    """
    counts = [int(is_known_N.sum()), int((~is_known_N).sum())]
    if min(counts) < MIN_CERTAIN:
        raise BadSteeringInput(
            f"{counts[0]} certain and {counts[1]} uncertain rows are too few to estimate a share "
            f"by, at least {MIN_CERTAIN} of either; declare it (positive_share: 0.3)"
        )
    half_N = np.zeros(len(is_known_N), dtype=bool)
    for side_N in (is_known_N, ~is_known_N):
        rows = np.flatnonzero(side_N)
        half_N[rows] = np.arange(len(rows)) * BLOCKS // len(rows) % 2 == 1
    shares = []
    for own_N in (half_N, ~half_N):
        train = np.flatnonzero(~own_N)
        ones = np.ones(len(train))
        (fitted,) = logistic_path(x[train], is_known_N[train], ones, (C,), seed=seed)
        rows = np.flatnonzero(own_N)
        score_N = np.asarray(x[rows] @ fitted.weight_D)
        shares.append(best_bin_share(score_N[is_known_N[rows]], score_N[~is_known_N[rows]]))
    return float(np.mean(shares))


def best_bin_share(known_K: Array, other_U: Array) -> float:
    """From scores that are higher the more surely a row is of the known side (Algorithm 1).

    Above the threshold with the smallest upper bound of share(others) / share(known), nearly all
    others are of the known side, so that this ratio is their share among the others.
    """
    threshold_K = np.sort(known_K)
    of_known_K = 1 - np.searchsorted(threshold_K, threshold_K) / len(known_K)
    of_other_K = 1 - np.searchsorted(np.sort(other_U), threshold_K) / len(other_U)
    spread = sum(np.sqrt(np.log(4 / MISS) / (2 * n)) for n in (len(known_K), len(other_U)))
    best = int(np.argmin((of_other_K + (1 + SLACK) * spread) / of_known_K))
    margin = 1 / (2 * len(other_U))
    return float(np.clip(of_other_K[best] / of_known_K[best], margin, 1 - margin))
