"""First principal axis of the pairs, each centred on its own middle. numpy only.

Shape suffixes: P = pairs, D = width.
"""

from __future__ import annotations

import numpy as np

from steering.directions.contrast_methods.base import Array, ContrastMethod


class PcaPairwise(ContrastMethod):
    """The axis along which members of pairs differ most.

    The rows +-(h+ - h-)/2 have mean zero by construction, so that centring takes nothing away.
    PCA of the differences themselves (`pca_diff`) subtracts their mean, which is the very shift
    that is looked for, and is not offered.
    """

    formula = "pca_pairwise"
    maths = "v = first right singular vector of the rows +-(h+ - h-)/2, unit length"
    sign_rule = "the side on which most pairs have their positive text; on a tie their mean"
    needs_pairs = True

    def direction(self, positive_PD: Array, negative_ND: Array) -> Array:
        half_PD = (positive_PD.astype(np.float64) - negative_ND) / 2
        # Rows +x and -x have the singular vectors of the rows x alone; of [P, P] and [D, D] the
        # smaller Gram matrix will do.
        if len(half_PD) <= half_PD.shape[1]:
            axis_D = half_PD.T @ np.linalg.eigh(half_PD @ half_PD.T)[1][:, -1]
        else:
            axis_D = np.linalg.eigh(half_PD.T @ half_PD)[1][:, -1]
        length = np.linalg.norm(axis_D)
        axis_D = axis_D / length if length > 0 else axis_D
        side_P = half_PD @ axis_D
        votes = np.sign(side_P).sum() or np.sign(side_P.mean()) or 1.0
        signed_D: Array = axis_D * np.sign(votes)
        return signed_D
