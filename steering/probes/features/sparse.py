"""Rows that are mostly zeros, as the places and values of the others. A torch module.

Shape suffixes: R = rows, F = latents, Z = entries that are not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["csr_of", "sparse_rows"]

Array = np.ndarray[Any, Any]


def sparse_rows(rows_RF: Tensor) -> dict[str, Array]:
    """`counts` int32 [R], `indices` int32 [Z] ascending in each row, `values` float32 [Z].

    Counts in place of row starts: parts of a table can be put one after the other as they are.
    """
    is_there_RF = rows_RF != 0
    row_Z, latent_Z = is_there_RF.nonzero(as_tuple=True)
    del row_Z
    return {
        "counts": is_there_RF.sum(dim=1).to(torch.int32).cpu().numpy(),
        "indices": latent_Z.to(torch.int32).cpu().numpy(),
        "values": rows_RF[is_there_RF].float().cpu().numpy(),
    }


def csr_of(arrays: Mapping[str, Array], num_latents: int) -> Any:
    """A scipy.sparse.csr_matrix float32 [R, F] over the arrays of `sparse_rows`.

    Values and places are not copied where they are float32 and int32.
    """
    from scipy.sparse import csr_matrix

    starts = np.zeros(len(arrays["counts"]) + 1, dtype=np.int64)
    np.cumsum(arrays["counts"], dtype=np.int64, out=starts[1:])
    values = np.asarray(arrays["values"])
    if values.dtype != np.float32:
        values = values.astype(np.float32)
    shape = (len(starts) - 1, num_latents)
    matrix = csr_matrix((values, np.asarray(arrays["indices"]), starts), shape=shape, copy=False)
    matrix.has_sorted_indices = True
    return matrix
