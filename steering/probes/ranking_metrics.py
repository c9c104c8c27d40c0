"""AUROC, AUPRC and F1 of one label as functions of row weights: fast enough to be resampled.

The numbers are those of scikit-learn (`roc_auc_score`, `average_precision_score`, `f1_score`).
Shape suffixes: N = rows, V = distinct scores.
"""

from __future__ import annotations

import numpy as np

from steering.probes.matrices import Array

__all__ = ["RankedLabel", "auroc", "average_precision", "cut"]


class RankedLabel:
    """Rows sorted once by their score; each metric then takes one pass over the weights."""

    def __init__(self, score_N: Array, y_N: Array) -> None:
        self._order_N = np.argsort(-np.asarray(score_N, dtype=np.float64), kind="stable")
        sorted_N = np.asarray(score_N, dtype=np.float64)[self._order_N]
        self._y_N = np.asarray(y_N, dtype=np.float64)[self._order_N]
        self._ends_V = np.flatnonzero(np.append(np.diff(sorted_N) != 0, True))
        self._threshold_V = sorted_N[self._ends_V]

    def _counts(self, weight_N: Array | None) -> tuple[Array, Array]:
        """Weights of positives and of negatives with at least each distinct score, [V]."""
        if weight_N is None:
            hits_N, all_N = np.cumsum(self._y_N), np.arange(1.0, len(self._y_N) + 1)
        else:
            sorted_N = np.asarray(weight_N, dtype=np.float64)[self._order_N]
            hits_N, all_N = np.cumsum(sorted_N * self._y_N), np.cumsum(sorted_N)
        hits_V = hits_N[self._ends_V]
        return hits_V, all_N[self._ends_V] - hits_V

    def auroc(self, weight_N: Array | None = None) -> float:
        """nan where one of the two sides is empty."""
        hits_V, false_V = self._counts(weight_N)
        area = hits_V[-1] * false_V[-1]
        if area <= 0:
            return float("nan")
        step_V = np.diff(false_V, prepend=0.0)
        height_V = hits_V - np.diff(hits_V, prepend=0.0) / 2
        return float((step_V * height_V).sum() / area)

    def average_precision(self, weight_N: Array | None = None) -> float:
        """Sum of (recall step x precision), not interpolated; nan without positives."""
        hits_V, false_V = self._counts(weight_N)
        if hits_V[-1] <= 0:
            return float("nan")
        # Rows that a resample left out come first with a weight of 0: no precision there.
        precision_V = hits_V / np.maximum(hits_V + false_V, np.finfo(float).tiny)
        return float((np.diff(hits_V, prepend=0.0) * precision_V).sum() / hits_V[-1])

    def roc_curve(self, points: int = 200) -> dict[str, list[float]]:
        """`false_positive_rate`, `true_positive_rate`, from (0, 0) to (1, 1), thinned."""
        hits_V, false_V = self._counts(None)
        if hits_V[-1] <= 0 or false_V[-1] <= 0:
            return {"false_positive_rate": [], "true_positive_rate": []}
        keep = _thinned(len(hits_V), points)
        return {
            "false_positive_rate": [0.0, *(false_V[keep] / false_V[-1]).tolist()],
            "true_positive_rate": [0.0, *(hits_V[keep] / hits_V[-1]).tolist()],
        }

    def precision_recall_curve(self, points: int = 200) -> dict[str, list[float]]:
        """`recall` (rising), `precision` and `threshold`, thinned."""
        hits_V, false_V = self._counts(None)
        if hits_V[-1] <= 0:
            return {"recall": [], "precision": [], "threshold": []}
        keep = _thinned(len(hits_V), points)
        return {
            "recall": (hits_V[keep] / hits_V[-1]).tolist(),
            "precision": (hits_V[keep] / (hits_V[keep] + false_V[keep])).tolist(),
            "threshold": self._threshold_V[keep].tolist(),
        }


def _thinned(count: int, points: int) -> Array:
    """Places of at most so many points, the first and the last among them."""
    if count <= points:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, points).round().astype(int))


def auroc(score_N: Array, y_N: Array) -> float:
    """Area under the ROC curve; nan where one of the two classes is missing."""
    return RankedLabel(score_N, y_N).auroc()


def average_precision(score_N: Array, y_N: Array) -> float:
    """Area under the precision-recall curve in steps; nan without positives."""
    return RankedLabel(score_N, y_N).average_precision()


def cut(called_N: Array, y_N: Array, weight_N: Array | None = None) -> tuple[float, ...]:
    """Weights of (true positives, false positives, false negatives, true negatives)."""
    weight = np.ones(len(y_N)) if weight_N is None else weight_N
    true_positive = float(weight @ (called_N & y_N))
    false_positive = float(weight @ (called_N & ~y_N))
    false_negative = float(weight @ (~called_N & y_N))
    rest = float(weight.sum()) - true_positive - false_positive - false_negative
    return true_positive, false_positive, false_negative, rest
