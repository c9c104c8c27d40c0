"""Logistic regressions along a grid of C, by scikit-learn, without a warning that nobody reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steering.probes.matrices import Array, Matrix

__all__ = ["LogisticFit", "Penalty", "calibration", "logistic_path"]

Penalty = Literal["l1", "l2"]
Solver = Literal["lbfgs", "liblinear", "saga"]


@dataclass(frozen=True)
class LogisticFit:
    """Weights for one C."""

    c: float
    weight_D: Array
    bias: float
    converged: bool


def logistic_path(
    x: Matrix,
    y_N: Array,
    weight_N: Array | None,
    cs: Sequence[float],
    *,
    penalty: Penalty = "l2",
    solver: Solver | None = None,
    max_iterations: int = 1000,
    seed: int = 0,
) -> Iterator[LogisticFit]:
    """Fit with each C in the order given; by L-BFGS a fit begins at the last one's weights.

    Args:
        solver: None for L-BFGS (L2) and liblinear (L1), which also counts the bias to what is
            penalised (little: it is scaled by 100). saga (L1) often stops short of the optimum.
    """
    model = _model(penalty, solver, max_iterations, seed)
    for c in cs:
        model.set_params(C=c)
        with warnings.catch_warnings():
            # What did not converge is said in the result.
            warnings.simplefilter("ignore")
            model.fit(x, y_N, sample_weight=weight_N)
        converged = int(np.max(model.n_iter_)) < max_iterations
        yield LogisticFit(c, model.coef_[0].copy(), float(model.intercept_[0]), converged)


def _model(penalty: Penalty, solver: Solver | None, max_iterations: int, seed: int) -> Any:
    import sklearn
    from sklearn.linear_model import LogisticRegression

    if penalty == "l2":
        return LogisticRegression(max_iter=max_iterations, warm_start=True)
    # scikit-learn 1.8 took the name of the penalty away.
    named = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < (1, 8)
    chosen: dict[str, Any] = {"penalty": "l1"} if named else {"l1_ratio": 1.0}
    if solver == "saga":
        chosen |= {"solver": "saga"}
    else:
        chosen |= {"solver": "liblinear", "intercept_scaling": 100.0}
    return LogisticRegression(max_iter=max_iterations, random_state=seed, **chosen)


def calibration(score_N: Array, y_N: Array) -> tuple[float, float]:
    """Slope and offset that turn scores into log odds (Platt 1999); the slope is above 0.

    Scores are fitted in units of their spread; where they do not rise with the label, all that is
    left is the share of positives, and an order that is kept.
    """
    spread = float(score_N.std()) or 1.0
    middle = float(score_N.mean())
    (fitted,) = logistic_path(((score_N - middle) / spread)[:, None], y_N, None, [1.0])
    slope = max(float(fitted.weight_D[0]), 1e-6) / spread
    return slope, fitted.bias - slope * middle
