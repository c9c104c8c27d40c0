"""Principal components of the training rows, then logistic regression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from steering.probes.components import Components, principal_components
from steering.probes.logistic import logistic_path
from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod
from steering.probes.scorers import Linear


class PcaLogistic(ProbeMethod):
    """L2-regularised logistic regression over the first principal components."""

    name: ClassVar[str] = "pca_logistic"

    components: tuple[int, ...] = Field(default=(2, 8, 32, 128), min_length=1)
    """Numbers of components to choose from; those above rows or width - 1 are lowered."""
    c: tuple[float, ...] = Field(default=(1e-2, 1.0, 100.0), min_length=1)
    """Inverse strengths of the penalty to choose from."""
    standardize: bool = True
    """Columns by mean and spread of the training rows, before the components are found."""
    max_iterations: int = Field(default=1000, gt=0)
    """Of the solver, for each C."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """The components, of the training rows alone; a sparse matrix stays sparse."""
        del x_validation
        scaling = Scaling.of(x_train, standardize=self.standardize)
        found = principal_components(scaling.apply(x_train), max(self.components), seed)
        most = found.reduced_NC.shape[1]
        counts = tuple(sorted({min(count, most) for count in self.components}))
        return _Components(self, scaling, found, counts, seed)


@dataclass(frozen=True)
class _Components(Prepared):
    method: PcaLogistic
    scaling: Scaling
    found: Components
    counts: tuple[int, ...]
    seed: int

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        for count in self.counts:
            for fitted in logistic_path(
                self.found.reduced_NC[:, :count],
                y_N,
                weight_N,
                sorted(self.method.c),
                max_iterations=self.method.max_iterations,
                seed=self.seed,
            ):
                weight_D = fitted.weight_D @ self.found.components_CD[:count]
                bias = fitted.bias - float(weight_D @ self.found.mean_D)
                setting = {"components": count, "c": fitted.c, "converged": fitted.converged}
                yield Candidate(setting, Linear(*self.scaling.unscaled(weight_D, bias)))
