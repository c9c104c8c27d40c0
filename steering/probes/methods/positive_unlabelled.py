"""Positive-unlabelled learning: one side's labels are certain, the other's may be either.

Shape suffixes: N = rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod


class PositiveUnlabelled(ProbeMethod):
    """Non-negative PU learning (Kiryo et al. 2017) with a linear score: for `pooling: tokens` of
    texts without spans, where a negative text's tokens are surely negative."""

    name: ClassVar[str] = "positive_unlabelled"
    weighs_rows: ClassVar[bool] = False

    positive_share: float = Field(gt=0, lt=1)
    """Share of positives among the rows that are not certain: it has to be declared, nothing in
    such labels tells it."""
    known: Literal["positive", "negative"] = "negative"
    """Which labels are certain. negative: a row labelled positive may be either, as tokens of
    positive texts are; positive: a row labelled negative may be either."""
    weight_decay: tuple[float, ...] = Field(default=(1e-1, 1e-2, 1e-3), min_length=1)
    """Of AdamW, to choose from."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Of AdamW."""
    epochs: int = Field(default=50, gt=0)
    """Passes over the training rows."""
    rows_per_step: int = Field(default=512, gt=1)
    """Rows a step of the optimiser sees."""
    standardize: bool = True
    """Columns by mean and spread of the training rows; sparse ones by their spread alone."""

    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """The scale of the training rows."""
        del x_validation
        scaling = Scaling.of(x_train, standardize=self.standardize)
        return _PositiveUnlabelled(self, x_train, scaling, seed)


@dataclass(frozen=True)
class _PositiveUnlabelled(Prepared):
    method: PositiveUnlabelled
    x_train: Matrix
    scaling: Scaling
    seed: int

    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        from steering.probes.noise.positive_unlabelled import PuSpec, pu_scorer

        del weight_N
        spec = PuSpec.model_validate(self.method.model_dump())
        for weight_decay in sorted(spec.weight_decay, reverse=True):
            scorer = pu_scorer(self.x_train, y_N, self.scaling, weight_decay, spec, self.seed)
            yield Candidate({"weight_decay": weight_decay}, scorer)
