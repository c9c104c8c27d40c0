"""Feature matrices of probes: numpy [N, D] or scipy CSR, checked, scaled, read in pieces.

A row may also be a bag: a text with a row a token. Shape suffixes: N = rows, D = columns (width or
latents), L = labels, T = tokens of all bags.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from steering.errors import BadSteeringInput

__all__ = [
    "Array",
    "Bags",
    "Matrix",
    "Scaling",
    "as_features",
    "as_labels",
    "bags_of",
    "is_sparse",
    "row_pieces",
    "times",
]

Array = np.ndarray[Any, Any]
Matrix = Any
"""A numpy array (also a memory map) or a scipy CSR matrix, whose rows are what a probe sees; or
`Bags` for methods that read them."""

PIECE_VALUES = 2**24
"""Most values of a dense piece: 128 MiB in float64."""
MAX_DENSE_VALUES = 2**30
"""Most values that a method may copy: 8 GiB in float64."""
BATCH_VALUES = 2**23
"""Most values of a batch of bags: 32 MiB in float32."""


@dataclass(frozen=True)
class Bags:
    """Every row is a bag of the tokens `offsets_I1[i]` to `offsets_I1[i + 1]` of the values."""

    values_TD: Matrix
    """Numpy (also a memory map) or CSR."""
    offsets_I1: Array
    """int64, from 0 to T, rising."""

    @property
    def shape(self) -> tuple[int, int]:
        """Bags and columns."""
        return len(self), self.values_TD.shape[1]

    @property
    def item_of_token_T(self) -> Array:
        """For each token the number of its bag."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets_I1))

    def __len__(self) -> int:
        return len(self.offsets_I1) - 1

    def __getitem__(self, numbers: Sequence[int] | Array) -> Bags:
        """These bags, their tokens copied."""
        rows, offsets = self.token_rows(numbers)
        return Bags(self.values_TD[rows], offsets)

    def token_rows(self, numbers: Sequence[int] | Array) -> tuple[Array, Array]:
        """The tokens of these bags, and their offsets among them."""
        chosen = np.asarray(numbers, dtype=np.int64)
        lengths = np.diff(self.offsets_I1)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.offsets_I1[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return rows, offsets

    def batches(self, order: Sequence[int] | Array | None = None) -> Iterator[Array]:
        """Numbers of bags, so many at a time that their values are few."""
        stored = self.values_TD.nnz if is_sparse(self.values_TD) else self.values_TD.size
        most = max(1, BATCH_VALUES * self.values_TD.shape[0] // max(1, stored))
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

    def largest(self) -> Matrix:
        """Each column's largest value in each bag, [bags, columns], sparse where the tokens are.

        What a sparse matrix does not store counts as nothing: latents are never negative.
        """
        if not is_sparse(self.values_TD):
            return np.maximum.reduceat(self.values_TD, self.offsets_I1[:-1], axis=0)
        tokens = self.values_TD.tocoo()
        places = self.item_of_token_T[tokens.row] * np.int64(self.shape[1]) + tokens.col
        order = np.argsort(places, kind="stable")
        found, first = np.unique(places[order], return_index=True)
        data = np.maximum.reduceat(tokens.data[order], first) if len(first) else tokens.data
        where = np.divmod(found, self.shape[1])
        return type(self.values_TD)((data, where), shape=self.shape)


def is_sparse(x: Matrix) -> TypeGuard[Any]:
    """Whether this is a scipy sparse matrix."""
    return hasattr(x, "tocsr")


def bags_of(values: Matrix, offsets: Any) -> Bags:
    """Tokens' values and where each bag of them begins, checked against each other.

    Args:
        values: [T, D], as `FeatureTable.matrix` of a spec with a row a token.
        offsets: as `FeatureTable.offsets` of the same.

    Raises:
        BadSteeringInput: bags without tokens, or numbers that do not fit.
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
    return Bags(values, offset_I1)


def as_features(x: Matrix, name: str) -> Matrix:
    """The matrix as float, dense or CSR with 32-bit indices where they suffice.

    Raises:
        BadSteeringInput: not two-dimensional, empty, or with values that are not finite.
    """
    if isinstance(x, Bags):
        return replace(x, values_TD=as_features(x.values_TD, name))
    if is_sparse(x):
        x = x.tocsr()
        if x.nnz < 2**31 and x.indices.dtype != np.int32:
            x = x.copy()
            x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)
        values: Array = x.data
    else:
        x = values = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise BadSteeringInput(f"{name} must be [rows, columns] and not empty; it is {x.shape}")
    if not np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
        values = x.data if is_sparse(x) else x
    pieces = [values] if values.ndim == 1 else [values[rows] for rows in row_pieces(values)]
    if not all(np.isfinite(piece).all() for piece in pieces):
        raise BadSteeringInput(
            f"{name} has values that are not finite; look for overflow in the model's precision"
        )
    return x


def as_labels(y: Any, rows: int, name: str) -> Array:
    """Labels as bool [N, L]; [N] is one label.

    Raises:
        BadSteeringInput: other values than 0 and 1, or another number of rows than the features.
    """
    y_NL = np.asarray(y)
    if y_NL.ndim == 1:
        y_NL = y_NL[:, None]
    if y_NL.ndim != 2 or len(y_NL) != rows:
        raise BadSteeringInput(f"{name} must have {rows} rows, as its features; it is {y_NL.shape}")
    if y_NL.dtype != bool:
        if not np.isin(y_NL, (0, 1)).all():
            raise BadSteeringInput(
                f"{name} must be bool [rows, labels], a column a class; it has other values than "
                "0 and 1"
            )
        y_NL = y_NL.astype(bool)
    return y_NL


def row_pieces(x: Matrix) -> Iterator[slice]:
    """Slices of rows that are small when dense."""
    step = max(1, PIECE_VALUES // max(1, x.shape[1]))
    for start in range(0, x.shape[0], step):
        yield slice(start, min(start + step, x.shape[0]))


def times(x: Matrix, weight: Array) -> Array:
    """x @ weight in float64, a piece of a dense matrix at a time."""
    if is_sparse(x):
        return np.asarray(x @ weight)
    out = np.empty((x.shape[0], *weight.shape[1:]))
    for rows in row_pieces(x):
        out[rows] = np.asarray(x[rows], dtype=np.float64) @ weight
    return out


@dataclass(frozen=True)
class Scaling:
    """Shift and scale of each column, from training rows; a sparse matrix is never shifted."""

    shift_D: Array
    scale_D: Array

    @classmethod
    def of(cls, x: Matrix, *, standardize: bool = True) -> Scaling:
        """Mean and standard deviation of the columns; constant ones keep their scale."""
        count, width = x.shape
        if not standardize:
            return cls(np.zeros(width), np.ones(width))
        if is_sparse(x):
            mean_D = np.asarray(x.mean(axis=0, dtype=np.float64)).ravel()
            square_D = np.bincount(
                x.indices, weights=x.data.astype(np.float64) ** 2, minlength=width
            )
            variance_D = np.maximum(square_D / count - mean_D**2, 0.0)
            shift_D = np.zeros(width)
        else:
            mean_D = np.zeros(width)
            for rows in row_pieces(x):
                mean_D += np.sum(x[rows], axis=0, dtype=np.float64) / count
            variance_D = np.zeros(width)
            for rows in row_pieces(x):
                variance_D += ((np.asarray(x[rows], dtype=np.float64) - mean_D) ** 2).sum(axis=0)
            variance_D /= count
            shift_D = mean_D
        # A constant column's variance is rounding; the bound is that of scikit-learn's scaler.
        tiny = np.finfo(np.float64).eps
        constant_D = variance_D <= count * tiny * variance_D + (count * mean_D * tiny) ** 2
        return cls(shift_D, np.where(constant_D, 1.0, np.sqrt(variance_D)))

    def apply(self, x: Matrix) -> Matrix:
        """A scaled copy, float64; a sparse matrix stays sparse.

        Raises:
            BadSteeringInput: a dense copy would be too large for memory.
        """
        if is_sparse(x):
            out = x.astype(np.float64, copy=True)
            out.data /= self.scale_D[out.indices]
            return out
        refuse_large(x.shape)
        copy = np.array(x, dtype=np.float64)
        copy -= self.shift_D
        copy /= self.scale_D
        return copy

    def unscaled(self, weight_D: Array, bias: float) -> tuple[Array, float]:
        """Weights and bias for the raw columns, from those for scaled ones."""
        raw_D = weight_D / self.scale_D
        return raw_D, bias - float(raw_D @ self.shift_D)


def refuse_large(shape: Sequence[int]) -> None:
    """Raise for a dense copy of more than 8 GiB in float64."""
    if shape[0] * shape[1] > MAX_DENSE_VALUES:
        raise BadSteeringInput(
            f"{shape[0]} rows x {shape[1]} columns are {shape[0] * shape[1] * 8 / 2**30:.0f} GiB "
            f"as a dense matrix; at most {MAX_DENSE_VALUES * 8 // 2**30} GiB are copied. Train on "
            "fewer rows (negative subsampling) or pool over tokens"
        )
