"""Logistic regression with an L2 penalty: the baseline that every report has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from steering.probes.logistic import Penalty, logistic_path
from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod
from steering.probes.scorers import Linear


class LogisticL2(ProbeMethod):
    """L2-regularised logistic regression over standardised columns."""

    name: ClassVar[str] = "logistic_l2"
    penalty: ClassVar[Penalty] = "l2"

    c: tuple[float, ...] = Field(default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), min_length=1)
    """Inverse strengths of the penalty to choose from."""
    standardize: bool = True
    """Columns by mean and spread of the training rows; sparse ones by their spread alone."""
    max_iterations: int = Field(default=1000, gt=0)
    """Of the solver, for each C."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """Scaled rows."""
        del x_validation
        scaling = Scaling.of(x_train, standardize=self.standardize)
        return _Logistic(self, scaling, scaling.apply(x_train), seed)


@dataclass(frozen=True)
class _Logistic(Prepared):
    method: LogisticL2
    scaling: Scaling
    x_train: Matrix
    seed: int

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        method = self.method
        for fitted in logistic_path(
            self.x_train,
            y_N,
            weight_N,
            sorted(method.c),
            penalty=method.penalty,
            max_iterations=method.max_iterations,
            seed=self.seed,
        ):
            scorer = Linear(*self.scaling.unscaled(fitted.weight_D, fitted.bias))
            yield Candidate({"c": fitted.c, "converged": fitted.converged}, scorer)
