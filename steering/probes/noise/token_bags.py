"""Tokens of items that are labelled as a whole: a ragged matrix, read a few items at a time.

Shape suffixes: T = tokens of all items, D = columns, I = items, L = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array, Bags, Matrix, as_labels, bags_of, row_pieces

__all__ = ["TokenBags", "pool_scores", "score_tokens"]


@dataclass(frozen=True)
class TokenBags(Bags):
    """Items with a row a token, and what the items are labelled."""

    y_IL: Array
    """Labels of the items, bool."""
    items: Array
    """What each item belongs to for splits and intervals, str [I]."""

    @classmethod
    def of(
        cls, values: Matrix, offsets: Any, y: Any, items: Sequence[Any] | None = None
    ) -> TokenBags:
        """Check the pieces against each other.

        Args:
            values: [T, D], as `FeatureTable.matrix` of a spec with a row a token.
            offsets: as `FeatureTable.offsets` of the same.
            items: None for each item its own.

        Raises:
            BadSteeringInput: items without tokens, or numbers that do not fit.
        """
        bags = bags_of(values, offsets)
        count = len(bags)
        named = np.asarray(range(count) if items is None else items, dtype=str)
        if len(named) != count:
            raise BadSteeringInput(f"{count} items by their offsets, but {len(named)} names")
        return cls(bags.values_TD, bags.offsets_I1, as_labels(y, count, "y"), named)

    def take(self, numbers: Sequence[int] | Array) -> TokenBags:
        """These items, their tokens copied."""
        chosen = np.asarray(numbers, dtype=np.int64)
        rows, offsets = self.token_rows(chosen)
        return TokenBags(self.values_TD[rows], offsets, self.y_IL[chosen], self.items[chosen])


def pool_scores(score_TL: Array, offsets_I1: Array, how: str = "max") -> Array:
    """Scores of items from those of their tokens, [I, L].

    Args:
        how: max, mean, or last.

    Raises:
        BadSteeringInput: another word.
    """
    starts = offsets_I1[:-1]
    if how == "max":
        return np.maximum.reduceat(score_TL, starts, axis=0)
    if how == "mean":
        return np.add.reduceat(score_TL, starts, axis=0) / np.diff(offsets_I1)[:, None]
    if how == "last":
        return score_TL[offsets_I1[1:] - 1]
    raise BadSteeringInput(f"pooling={how!r} is unknown; known: max, mean, last")


def score_tokens(scores: Callable[[Matrix], Array], values_TD: Matrix) -> Array:
    """Scores [T, L] of every token, a piece at a time, such as by `FittedProbe.scores`."""
    return np.concatenate([scores(values_TD[rows]) for rows in row_pieces(values_TD)])
