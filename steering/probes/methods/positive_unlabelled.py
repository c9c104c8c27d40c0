"""Positive-unlabelled learning: one side's labels are certain, the other's may be either.

Shape suffixes: N = rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from steering.probes.matrices import Array, Matrix, Scaling
from steering.probes.method import Candidate, Prepared, ProbeMethod


class PositiveUnlabelled(ProbeMethod):
    """Non-negative PU learning (Kiryo et al. 2017) with a linear score."""

    name: ClassVar[str] = "positive_unlabelled"
    weighs_rows: ClassVar[bool] = False

    known: Literal["positive", "negative"]
    """Which labels are certain: nothing in the data tells it, so there is no default.

    positive: a row labelled negative may be either (labels were missed). negative: a row labelled
    positive may be either, as tokens of positive texts are (pooling: tokens, without spans)."""
    positive_share: Annotated[float, Field(gt=0, lt=1)] | Literal["estimate"] = "estimate"
    """Share of positives among the rows that are not certain; estimate: from the training rows.

    By best bin estimation (`noise/class_prior.py`); what it came to is among what was chosen."""
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
        share = self._positive_share(y_N)
        spec = PuSpec.model_validate({**self.method.model_dump(), "positive_share": share})
        for weight_decay in sorted(spec.weight_decay, reverse=True):
            scorer = pu_scorer(self.x_train, y_N, self.scaling, weight_decay, spec, self.seed)
            yield Candidate({"weight_decay": weight_decay, "positive_share": share}, scorer)

    def _positive_share(self, y_N: Array) -> float:
        from steering.probes.noise.class_prior import estimated_share

        if isinstance(self.method.positive_share, float):
            return self.method.positive_share
        scaled = self.scaling.apply(self.x_train)
        if self.method.known == "positive":
            return estimated_share(scaled, y_N, seed=self.seed)
        return 1 - estimated_share(scaled, ~y_N, seed=self.seed)
