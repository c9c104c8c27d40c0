"""Tokens of items that are labelled as a whole: a ragged matrix, read a few items at a time.

Shape suffixes: T = tokens of all items, D = columns, I = items, L = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array, Matrix, as_features, as_labels, is_sparse, row_pieces

__all__ = ["TokenBags", "pool_scores", "score_tokens"]

BATCH_VALUES = 2**23
"""Most values of a batch of tokens made dense: 32 MiB in float32."""


@dataclass(frozen=True)
class TokenBags:
    """Every item has the tokens `offsets_I1[i]` to `offsets_I1[i + 1]` of the values."""

    values_TD: Matrix
    """Numpy (also a memory map) or CSR."""
    offsets_I1: Array
    """int64, from 0 to T, rising."""
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
        values = as_features(values, "values")
        offset_I1 = np.asarray(offsets, dtype=np.int64)
        if len(offset_I1) < 2 or offset_I1[0] != 0 or offset_I1[-1] != values.shape[0]:
            raise BadSteeringInput(
                f"offsets must run from 0 to the {values.shape[0]} tokens; they run from "
                f"{offset_I1[:1].tolist()} to {offset_I1[-1:].tolist()}"
            )
        empty = np.flatnonzero(np.diff(offset_I1) < 1)
        if len(empty):
            raise BadSteeringInput(
                f"{len(empty)} items have no token (the first: {empty[0]}); leave them out"
            )
        count = len(offset_I1) - 1
        named = np.asarray(range(count) if items is None else items, dtype=str)
        if len(named) != count:
            raise BadSteeringInput(f"{count} items by their offsets, but {len(named)} names")
        return cls(values, offset_I1, as_labels(y, count, "y"), named)

    def __len__(self) -> int:
        return len(self.offsets_I1) - 1

    @property
    def item_of_token_T(self) -> Array:
        """For each token the number of its item."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets_I1))

    def take(self, numbers: Sequence[int] | Array) -> TokenBags:
        """These items, their tokens copied."""
        chosen = np.asarray(numbers, dtype=np.int64)
        lengths = np.diff(self.offsets_I1)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.offsets_I1[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TokenBags(self.values_TD[rows], offsets, self.y_IL[chosen], self.items[chosen])

    def batches(self, order: Sequence[int] | Array | None = None) -> Iterator[Array]:
        """Numbers of items, so many at a time that their tokens are small when dense."""
        most = max(1, BATCH_VALUES // self.values_TD.shape[1])
        batch: list[int] = []
        tokens = 0
        for item in np.arange(len(self)) if order is None else np.asarray(order):
            length = int(self.offsets_I1[item + 1] - self.offsets_I1[item])
            if batch and tokens + length > most:
                yield np.array(batch)
                batch, tokens = [], 0
            batch.append(int(item))
            tokens += length
        if batch:
            yield np.array(batch)

    def dense(self) -> Array:
        """All values as float32; for batches, which are small."""
        values = self.values_TD.toarray() if is_sparse(self.values_TD) else self.values_TD
        return np.asarray(values, dtype=np.float32)


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
