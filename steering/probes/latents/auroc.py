"""AUROC of every latent by itself, exact, with ties, from a sparse matrix.

Shape suffixes: N = rows, F = latents, L = labels, Z = entries that are not zero, G = groups of
equal values of one latent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steering.errors import BadSteeringInput

__all__ = ["latent_auroc"]

Array = np.ndarray[Any, Any]
BLOCK_ENTRIES = 4_000_000
"""Entries that are sorted at a time: some 300 MB beside the matrix."""


def latent_auroc(x_NF: Any, y_NL: Array) -> Array:
    """AUROC [F, L] of each latent for each label: how often a positive row has more of it.

    Equal values count half, as in scikit-learn's roc_auc_score (Mann and Whitney 1947). Latents
    that never fire have 0.5.

    Args:
        x_NF: scipy sparse, or numpy.
        y_NL: bool, [N, L] or [N].

    Raises:
        BadSteeringInput: another number of rows, or a label that all rows have or lack.
    """
    from scipy.sparse import csc_matrix

    y_NL = np.asarray(y_NL, dtype=bool).reshape(len(y_NL), -1)
    if x_NF.shape[0] != len(y_NL):
        raise BadSteeringInput(f"{x_NF.shape[0]} rows of latents have {len(y_NL)} labels")
    positives_L = y_NL.sum(axis=0).astype(np.float64)
    if (positives_L == 0).any() or (positives_L == len(y_NL)).any():
        label = int(np.flatnonzero((positives_L == 0) | (positives_L == len(y_NL)))[0])
        raise BadSteeringInput(
            f"label {label} is the same in all {len(y_NL)} rows; AUROC needs both"
        )
    columns = csc_matrix(x_NF)
    if (columns.data == 0).any():
        columns = columns.copy()  # it may be the caller's own
        columns.eliminate_zeros()
    rank_sum_FL = np.zeros((x_NF.shape[1], y_NL.shape[1]))
    start = 0
    while start < x_NF.shape[1]:
        # At least one latent, else as many as the block holds.
        limit = int(columns.indptr[start]) + BLOCK_ENTRIES
        end = max(start + 1, int(np.searchsorted(columns.indptr, limit, side="right")) - 1)
        rank_sum_FL[start:end] = _rank_sums(columns, start, end, y_NL)
        start = end
    negatives_L = len(y_NL) - positives_L
    least_L = positives_L * (positives_L + 1) / 2
    return (rank_sum_FL - least_L) / (positives_L * negatives_L)


def _rank_sums(columns: Any, start: int, end: int, y_NL: Array) -> Array:
    """Sum of the ranks of the positive rows, for latents start..end, [end - start, L]."""
    num_rows, width = len(y_NL), end - start
    where = slice(int(columns.indptr[start]), int(columns.indptr[end]))
    count_F = np.diff(columns.indptr[start : end + 1]).astype(np.int64)
    latent_Z = np.repeat(np.arange(width), count_F)
    value_Z, row_Z = columns.data[where], columns.indices[where]
    order_Z = np.lexsort((value_Z, latent_Z))
    value_Z, row_Z = value_Z[order_Z], row_Z[order_Z]
    zeros_F = num_rows - count_F
    below_F = np.bincount(latent_Z[value_Z < 0], minlength=width)
    first_F = np.concatenate([[0], np.cumsum(count_F)])[:-1]
    place_Z = np.arange(len(value_Z)) - first_F[latent_Z] + 1
    rank_Z = _average_over_ties(place_Z, value_Z, latent_Z)
    rank_Z += np.where(value_Z > 0, zeros_F[latent_Z], 0)
    zero_rank_F = below_F + (zeros_F + 1) / 2
    sums_FL = np.empty((width, y_NL.shape[1]))
    for label in range(y_NL.shape[1]):
        is_positive_Z = y_NL[row_Z, label]
        ranks_F = np.bincount(latent_Z, weights=rank_Z * is_positive_Z, minlength=width)
        inside_F = np.bincount(latent_Z, weights=is_positive_Z, minlength=width)
        sums_FL[:, label] = ranks_F + (y_NL[:, label].sum() - inside_F) * zero_rank_F
    return sums_FL


def _average_over_ties(place_Z: Array, value_Z: Array, latent_Z: Array) -> Array:
    """Ranks, equal values of a latent having their mean one. Sorted by latent and value."""
    if not len(value_Z):
        return place_Z.astype(np.float64)
    is_new_Z = np.ones(len(value_Z), dtype=bool)
    is_new_Z[1:] = (value_Z[1:] != value_Z[:-1]) | (latent_Z[1:] != latent_Z[:-1])
    group_Z = np.cumsum(is_new_Z) - 1
    first_G = place_Z[is_new_Z]
    size_G = np.bincount(group_Z)
    return (first_G + (size_G - 1) / 2)[group_Z]
