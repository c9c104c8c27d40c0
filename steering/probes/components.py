"""Principal components of training rows, in units of their spread.

Shape suffixes: N = rows, D = columns, C = components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steering.probes.matrices import Array, Matrix, is_sparse

__all__ = ["Components", "principal_components"]


@dataclass(frozen=True)
class Components:
    """Rows in few columns, and the way there."""

    reduced_NC: Array
    """Each column with spread 1, the first component first."""
    components_CD: Array
    """reduced = (scaled row - mean) . components."""
    mean_D: Array


def principal_components(scaled: Matrix, most: int, seed: int) -> Components:
    """At most so many components; fewer where rows or columns are fewer. Sparse stays sparse."""
    from sklearn.decomposition import PCA

    count = max(1, min(most, scaled.shape[0] - 1, scaled.shape[1] - 1))
    solver = "auto"
    if is_sparse(scaled):
        if min(scaled.shape) > count:
            solver = "arpack"
        else:
            scaled = scaled.toarray()
    pca = PCA(n_components=count, svd_solver=solver, random_state=seed)
    reduced_NC = pca.fit_transform(scaled)
    # In units of their spread: one C, or one learning rate, suits the first and the last.
    spread_C = np.maximum(reduced_NC.std(axis=0), np.finfo(float).tiny)
    return Components(reduced_NC / spread_C, pca.components_ / spread_C[:, None], pca.mean_)
