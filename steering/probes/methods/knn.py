"""The k nearest training rows vote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod
from steering.probes.scorers import Neighbours, nearest_rows


class Knn(ProbeMethod):
    """Nearest neighbours over standardised columns, Euclidean; votes count by row weight."""

    name: ClassVar[str] = "knn"

    k: tuple[int, ...] = Field(default=(1, 3, 5, 10, 20, 50, 100), min_length=1)
    """Numbers of neighbours to choose from; those above the training rows are lowered."""
    standardize: bool = True
    """Columns by mean and spread of the training rows; sparse ones by their spread alone."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """The neighbours of the validation rows, found once for all labels and all k."""
        del seed
        scaling = Scaling.of(x_train, standardize=self.standardize)
        scaled = scaling.apply(x_train)
        ks = sorted({min(k, x_train.shape[0]) for k in self.k}, reverse=True)
        nearest_NK = nearest_rows(scaled, scaling, x_validation, ks[0])
        return _Knn(scaling, scaled, nearest_NK, tuple(ks))


@dataclass(frozen=True)
class _Knn(Prepared):
    scaling: Scaling
    x_train: Matrix
    nearest_NK: Array
    ks: tuple[int, ...]

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        for k in self.ks:
            scorer = Neighbours(self.scaling, self.x_train, np.asarray(y_N), weight_N, k)
            yield Candidate({"k": k}, scorer, scorer.votes(self.nearest_NK))
