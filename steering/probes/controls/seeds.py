"""A number over seeds: mean, spread, and an interval that says how few they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steering.errors import BadSteeringInput

__all__ = ["MIN_SEEDS", "SeedSummary", "over_seeds", "student_t"]

MIN_SEEDS = 3


@dataclass(frozen=True)
class SeedSummary:
    """Mean over seeds with Student's interval for it."""

    mean: float
    spread: float
    """Standard deviation between seeds."""
    low: float
    high: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] ({len(self.values)} seeds)"


def over_seeds(
    values: Sequence[float],
    *,
    within: tuple[float, float] = (0.0, 1.0),
    confidence: float = 0.95,
) -> SeedSummary:
    """Summary of one number a seed.

    Args:
        within: what the number can be, such as (0, 1) for an AUROC: where few seeds make the
            interval wider than that, it is cut there.

    Raises:
        BadSteeringInput: fewer than three seeds.
    """
    if len(values) < MIN_SEEDS:
        raise BadSteeringInput(
            f"{len(values)} seeds say nothing of the spread between seeds; run at least {MIN_SEEDS}"
        )
    value_S = np.asarray(values, dtype=float)
    mean, spread = float(value_S.mean()), float(value_S.std(ddof=1))
    half = student_t(len(values) - 1, confidence) * spread / math.sqrt(len(values))
    low, high = max(within[0], mean - half), min(within[1], mean + half)
    return SeedSummary(mean, spread, low, high, tuple(value_S.tolist()))


def student_t(freedom: int, confidence: float) -> float:
    """Two-sided quantile of Student's distribution."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))
