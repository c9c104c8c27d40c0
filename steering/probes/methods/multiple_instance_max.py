"""Multiple-instance learning by the best token: one token of a positive text gives it away.

Shape suffixes: N = texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from steering.probes.matrices import Array, Bags, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod
from steering.probes.scorers import BagPooling


class MultipleInstanceMax(ProbeMethod):
    """Tokens are scored, texts are labelled, and a text is its best token."""

    name: ClassVar[str] = "multiple_instance_max"
    reads_bags: ClassVar[bool] = True
    bag_pooling: ClassVar[BagPooling] = "max"

    weight_decay: tuple[float, ...] = Field(default=(1e-1, 1e-2, 1e-4), min_length=1)
    """Of AdamW, to choose from."""
    epochs: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(5, 15, 40), min_length=1)
    """Passes over the training texts to choose from; one training passes through all of them."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Of AdamW."""
    texts_per_step: int = Field(default=32, gt=0)
    """Texts a step of the optimiser sees."""
    standardize: bool = True
    """Columns by mean and spread of the training tokens; sparse ones by their spread alone."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """The scale of the training tokens."""
        del x_validation
        scaling = Scaling.of(x_train.values_TD, standardize=self.standardize)
        return _MultipleInstance(self, x_train, scaling, seed)


@dataclass(frozen=True)
class _MultipleInstance(Prepared):
    method: MultipleInstanceMax
    x_train: Bags
    scaling: Scaling
    seed: int

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        import torch

        from steering.probes.noise.multiple_instance import MultipleInstanceSpec, trained_nets

        method = self.method
        spec = MultipleInstanceSpec(
            pooling=method.bag_pooling,
            learning_rate=method.learning_rate,
            items_per_step=method.texts_per_step,
        )
        y_N1, weight_N1 = (
            torch.from_numpy(values[:, None].astype(np.float32)) for values in (y_N, weight_N)
        )
        for weight_decay in sorted(method.weight_decay, reverse=True):
            nets = trained_nets(
                self.x_train, y_N1, weight_N1, self.scaling, spec, weight_decay, self.seed
            )
            for epoch, net in enumerate(islice(nets, max(method.epochs)), start=1):
                if epoch in method.epochs:
                    setting = {"weight_decay": weight_decay, "epochs": epoch}
                    yield Candidate(setting, net.scorer(self.scaling))
