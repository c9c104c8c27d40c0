"""Mass-mean probes: the difference of the classes' means, as it is or whitened.

Marks and Tegmark 2023, section 5.1: direction mu+ - mu-; for independent, identically distributed
data the score uses Sigma^-1 (mu+ - mu-), with the covariance within the classes.
Shape suffixes: N = rows, D = columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from steering.probes.matrices import Array, Matrix, Scaling, is_sparse
from steering.probes.method import Candidate, Prepared, ProbeMethod, Setting
from steering.probes.scorers import Linear

MAX_EXACT_WIDTH = 2048
"""Up to here the covariance is built (32 MiB); wider ones are only multiplied with."""


class MassMean(ProbeMethod):
    """Difference of class means; `iid` whitens it by the shrunk covariance within classes."""

    name: ClassVar[str] = "mass_mean"

    iid: tuple[bool, ...] = Field(default=(False, True), min_length=1)
    """Whether to whiten; both, and validation chooses."""
    shrinkage: tuple[float, ...] = Field(default=(0.5, 0.1, 0.01), min_length=1)
    """Share of the covariance that is replaced by its mean variance, to choose from."""
    standardize: bool = False
    """The published form is over raw columns."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """Scaled rows."""
        del x_validation, seed
        scaling = Scaling.of(x_train, standardize=self.standardize)
        return _MassMean(self, scaling, scaling.apply(x_train))


@dataclass(frozen=True)
class _MassMean(Prepared):
    method: MassMean
    scaling: Scaling
    x_train: Matrix

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        x, y = self.x_train, y_N.astype(np.float64)
        positive_D = _weighted_mean(x, weight_N * y)
        negative_D = _weighted_mean(x, weight_N * (1 - y))
        difference_D = positive_D - negative_D
        middle_D = (positive_D + negative_D) / 2
        if False in self.method.iid:
            yield self._candidate({"iid": False}, difference_D, middle_D)
        if True in self.method.iid:
            covariance = _covariance(x, y_N, weight_N, positive_D, negative_D)
            for shrinkage in sorted(self.method.shrinkage, reverse=True):
                weight_D = covariance.solve(difference_D, shrinkage)
                yield self._candidate({"iid": True, "shrinkage": shrinkage}, weight_D, middle_D)

    def _candidate(self, setting: Setting, weight_D: Array, middle_D: Array) -> Candidate:
        bias = -float(weight_D @ middle_D)
        return Candidate(setting, Linear(*self.scaling.unscaled(weight_D, bias)))


def _weighted_mean(x: Matrix, weight_N: Array) -> Array:
    return np.asarray(x.T @ weight_N).ravel() / weight_N.sum()


@dataclass(frozen=True)
class _Covariance:
    """Covariance within the classes, as a product with a vector; never [D, D] where D is large."""

    product: Callable[[Array], Array]
    mean_variance: float
    exact_DD: Array | None

    def solve(self, vector_D: Array, shrinkage: float) -> Array:
        """(( 1 - s) Sigma + s mean-variance I)^-1 vector."""
        floor = shrinkage * max(self.mean_variance, np.finfo(float).tiny)
        if self.exact_DD is not None:
            shrunk_DD = (1 - shrinkage) * self.exact_DD
            shrunk_DD.flat[:: len(vector_D) + 1] += floor
            return np.linalg.solve(shrunk_DD, vector_D)
        from scipy.sparse.linalg import LinearOperator, cg

        size = len(vector_D)
        operator = LinearOperator(
            (size, size),
            matvec=lambda v: (1 - shrinkage) * self.product(v) + floor * v,
            dtype=np.float64,
        )
        # The shrinkage bounds the condition; 500 steps short of 1e-6 still order rows well.
        solution, _ = cg(operator, vector_D, rtol=1e-6, maxiter=500)
        return np.asarray(solution)


def _covariance(
    x: Matrix, y_N: Array, weight_N: Array, positive_D: Array, negative_D: Array
) -> _Covariance:
    total = float(weight_N.sum())
    share_positive = float(weight_N @ y_N) / total

    def product(vector_D: Array) -> Array:
        raw_D = np.asarray(x.T @ (weight_N * np.asarray(x @ vector_D))) / total
        raw_D -= share_positive * positive_D * (positive_D @ vector_D)
        return raw_D - (1 - share_positive) * negative_D * (negative_D @ vector_D)

    squares = x.multiply(x) if is_sparse(x) else None
    square_D = (
        np.asarray(squares.T @ weight_N).ravel()
        if squares is not None
        else np.einsum("nd,nd,n->d", x, x, weight_N)
    ) / total
    variance_D = square_D - share_positive * positive_D**2 - (1 - share_positive) * negative_D**2
    exact_DD = None
    if not is_sparse(x) and x.shape[1] <= MAX_EXACT_WIDTH:
        centred_ND = (x - np.where(y_N[:, None], positive_D, negative_D)) * np.sqrt(weight_N)[
            :, None
        ]
        exact_DD = centred_ND.T @ centred_ND / total
    return _Covariance(product, float(variance_D.mean()), exact_DD)
