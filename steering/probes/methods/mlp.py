"""A small network with one hidden layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from steering.probes.components import Components, principal_components
from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod
from steering.probes.scorers import Layers


class Mlp(ProbeMethod):
    """One hidden layer with ReLU, trained by Adam, over standardised columns."""

    name: ClassVar[str] = "mlp"

    hidden: tuple[int, ...] = Field(default=(16, 64), min_length=1)
    """Widths of the hidden layer to choose from."""
    alpha: tuple[float, ...] = Field(default=(10.0, 0.1, 1e-3), min_length=1)
    """Strengths of the L2 penalty to choose from."""
    epochs: int = Field(default=60, gt=0)
    """Most passes over the training rows; fewer where the loss stands still."""
    learning_rate: float = Field(default=1e-3, gt=0)
    max_columns: int = Field(default=512, gt=0)
    """Wider features are first reduced to so many principal components of the training rows: a
    network over tens of thousands of latents takes minutes a setting."""
    standardize: bool = True
    """Columns by mean and spread of the training rows; sparse ones by their spread alone."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """Scaled rows, or their components."""
        del x_validation
        scaling = Scaling.of(x_train, standardize=self.standardize)
        scaled = scaling.apply(x_train)
        if x_train.shape[1] <= self.max_columns:
            return _Mlp(self, scaling, scaled, None, seed)
        found = principal_components(scaled, self.max_columns, seed)
        return _Mlp(self, scaling, found.reduced_NC, found, seed)


@dataclass(frozen=True)
class _Mlp(Prepared):
    method: Mlp
    scaling: Scaling
    x_train: Matrix
    components: Components | None
    seed: int

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        from sklearn.neural_network import MLPClassifier

        for hidden in sorted(self.method.hidden):
            for alpha in sorted(self.method.alpha, reverse=True):
                model = MLPClassifier(
                    (hidden,),
                    alpha=alpha,
                    learning_rate_init=self.method.learning_rate,
                    max_iter=self.method.epochs,
                    random_state=self.seed,
                )
                with warnings.catch_warnings():
                    # To stop after so many epochs is what was asked for.
                    warnings.simplefilter("ignore")
                    model.fit(self.x_train, y_N, sample_weight=weight_N)
                scorer = self._scorer(model.coefs_, model.intercepts_)
                setting = {"hidden": hidden, "alpha": alpha, "epochs": int(model.n_iter_)}
                yield Candidate(setting, scorer)

    def _scorer(self, weights: list[Array], biases: list[Array]) -> Layers:
        """The network over scaled columns; components are part of its first layer."""
        if self.components is None:
            return Layers(self.scaling, tuple(weights), tuple(biases))
        first_DH = self.components.components_CD.T @ weights[0]
        first_H = biases[0] - self.components.mean_D @ first_DH
        return Layers(self.scaling, (first_DH, *weights[1:]), (first_H, *biases[1:]))
