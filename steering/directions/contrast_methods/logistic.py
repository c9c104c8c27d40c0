"""Normal of a logistic regression between the sides. scikit-learn."""

from __future__ import annotations

import numpy as np

from steering.directions.contrast_methods.base import Array, ContrastMethod


class Logistic(ContrastMethod):
    """What tells the sides apart best, which need not be what moves from one to the other."""

    formula = "logistic"
    maths = "v = w of argmin_w sum log(1 + exp(-y (w.(h - mean) / s + b))) + |w|^2 / 2, unit length"
    sign_rule = "to the side that is classified as positive"

    def direction(self, positive_PD: Array, negative_ND: Array) -> Array:
        from sklearn.linear_model import LogisticRegression

        rows = np.concatenate([positive_PD, negative_ND]).astype(np.float64)
        rows -= rows.mean(axis=0)
        # One scale for all dimensions: it keeps the regularisation comparable between layers and
        # leaves directions as they are, which a scale for each dimension would not.
        scale = np.sqrt((rows**2).sum(axis=1).mean()) or 1.0
        is_positive = np.arange(len(rows)) < len(positive_PD)
        model = LogisticRegression(class_weight="balanced", max_iter=2000)
        weight_D = model.fit(rows / scale, is_positive).coef_[0]
        unit_D: Array = weight_D / (np.linalg.norm(weight_D) or 1.0)
        return unit_D
