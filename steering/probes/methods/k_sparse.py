"""k-sparse probes: the k latents whose means differ most between the classes, then logistic.

Gurnee et al. 2023; as in sae-probes (Kantamneni et al. 2025) a latent counts relative to its mean
activation where it fires. Shape suffixes: N = rows, D = columns (latents), K = chosen ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from steering.probes.latent_order import chosen_columns, order_by_difference
from steering.probes.logistic import Penalty, logistic_path
from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod
from steering.probes.scorers import ChosenColumns


class KSparse(ProbeMethod):
    """Logistic regression over the k latents with the largest class mean difference."""

    name: ClassVar[str] = "k_sparse"

    k: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), min_length=1)
    """Numbers of latents to choose from, 1 to 512; those above the width are left out."""
    c: tuple[float, ...] = Field(default=(1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), min_length=1)
    """Inverse strengths of the penalty to choose from."""
    penalty: Penalty = "l2"
    """Of the logistic regression over the chosen latents."""
    normalize: bool = True
    """Compare latents relative to their mean activation where they fire, as sae-probes does."""
    standardize: bool = True
    """Chosen latents by their mean and spread over the training rows."""
    max_iterations: int = Field(default=1000, gt=0)
    """Of the solver, for each C."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """Nothing is shared: the latents depend on the label."""
        del x_validation
        widths = sorted({min(k, x_train.shape[1]) for k in self.k})
        return _KSparse(self, x_train, tuple(widths), seed)


@dataclass(frozen=True)
class _KSparse(Prepared):
    method: KSparse
    x_train: Matrix
    ks: tuple[int, ...]
    seed: int

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        method, width = self.method, self.x_train.shape[1]
        order_D, _ = order_by_difference(self.x_train, y_N, normalize=method.normalize)
        most_NK = chosen_columns(self.x_train, order_D[: self.ks[-1]])
        for k in self.ks:
            chosen_NK = most_NK[:, :k]
            scaling = Scaling.of(chosen_NK, standardize=method.standardize)
            for fitted in logistic_path(
                scaling.apply(chosen_NK),
                y_N,
                weight_N,
                sorted(method.c),
                penalty=method.penalty,
                max_iterations=method.max_iterations,
                seed=self.seed,
            ):
                weight_K, bias = scaling.unscaled(fitted.weight_D, fitted.bias)
                yield Candidate(
                    {"k": k, "c": fitted.c, "converged": fitted.converged},
                    ChosenColumns(np.asarray(order_D[:k]), weight_K, bias, width),
                )
