"""Latents in the order in which their means differ between two classes.

Shape suffixes: N = rows, D = latents, K = chosen ones.
"""

from __future__ import annotations

import numpy as np

from steering.probes.matrices import Array, Matrix, is_sparse, row_pieces

__all__ = ["chosen_columns", "column_sums", "order_by_difference"]

DENSE_VALUES = 2**25
"""Chosen latents are made dense up to 256 MiB, and stay sparse beyond."""


def column_sums(x: Matrix, weight_N: Array) -> Array:
    """Weighted sum of each column, float64 [D]."""
    if is_sparse(x):
        return np.asarray(x.T @ weight_N.astype(np.float64)).ravel()
    total_D = np.zeros(x.shape[1])
    for rows in row_pieces(x):
        total_D += weight_N[rows] @ np.asarray(x[rows], dtype=np.float64)
    return total_D


def mean_where_active(x: Matrix) -> Array:
    """Mean |activation| over the rows in which a latent is not 0, [D]; as sae-probes has it."""
    ones_N = np.ones(x.shape[0])
    if is_sparse(x):
        count_D = np.bincount(x.indices[x.data != 0], minlength=x.shape[1]).astype(np.float64)
        total_D = column_sums(abs(x), ones_N)
    else:
        count_D, total_D = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for rows in row_pieces(x):
            piece = np.asarray(x[rows], dtype=np.float64)
            count_D += (piece != 0).sum(axis=0)
            total_D += np.abs(piece).sum(axis=0)
    return total_D / (count_D + 1e-6)


def order_by_difference(x: Matrix, y_N: Array, *, normalize: bool) -> tuple[Array, Array]:
    """Latents by |mean of positives - mean of negatives|, largest first.

    Args:
        y_N: bool, with both classes.
        normalize: divide each latent by its mean activation where it fires.

    Returns:
        The order [D], and the signed differences [D] by latent. Equal ones keep their numbers'
        order.
    """
    y = y_N.astype(np.float64)
    difference_D = column_sums(x, y) / y.sum() - column_sums(x, 1 - y) / (1 - y).sum()
    if normalize:
        difference_D = difference_D / (mean_where_active(x) + 1e-6)
    return np.argsort(-np.abs(difference_D), kind="stable"), difference_D


def chosen_columns(x: Matrix, columns_K: Array) -> Matrix:
    """These columns in this order, dense where that is small, else CSR."""
    part = x[:, columns_K]
    if is_sparse(part) and part.shape[0] * part.shape[1] <= DENSE_VALUES:
        return part.toarray()
    return part
