"""Feature matrices of probes: numpy [N, D] or scipy CSR, checked, scaled, read in pieces.

Shape suffixes: N = rows, D = columns (width or latents), L = labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from steering.errors import BadSteeringInput

__all__ = [
    "Array",
    "Matrix",
    "Scaling",
    "as_features",
    "as_labels",
    "is_sparse",
    "row_pieces",
    "times",
]

Array = np.ndarray[Any, Any]
Matrix = Any
"""A numpy array (also a memory map) or a scipy CSR matrix; rows are what a probe sees."""

PIECE_VALUES = 2**24
"""Most values of a dense piece: 128 MiB in float64."""
MAX_DENSE_VALUES = 2**30
"""Most values that a method may copy: 8 GiB in float64."""


def is_sparse(x: Matrix) -> TypeGuard[Any]:
    """Whether this is a scipy sparse matrix."""
    return hasattr(x, "tocsr")


def as_features(x: Matrix, name: str) -> Matrix:
    """The matrix as float, dense or CSR with 32-bit indices where they suffice.

    Raises:
        BadSteeringInput: not two-dimensional, empty, or with values that are not finite.
    """
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
