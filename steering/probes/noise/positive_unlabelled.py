"""Non-negative PU learning: some rows are known, the others may be either. A torch module.

Kiryo et al. 2017, eq. 6: risk = pi R+(known) + max(0, R-(others) - pi R-(known)), with the
sigmoid loss of their experiments and a linear score. For tokens of labelled items the known side
is the negative one: a negative item's tokens are all negative, a positive item's may be either.
Shape suffixes: N = rows, D = columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array, Matrix, Scaling, as_features, as_labels
from steering.probes.noise.scaled_rows import scaled_rows, times_weight
from steering.probes.scorers import Linear

__all__ = ["FittedPu", "PuSpec", "fit_pu", "pu_risk", "pu_scorer"]


class PuSpec(BaseModel):
    """What is known of the labels, and how a linear score is trained by it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    positive_share: float = Field(gt=0, lt=1)
    """Share of positives among the rows that are not known: it has to be declared, nothing in such
    labels tells it."""
    known: Literal["positive", "negative"] = "positive"
    """Which labels are certain. positive: a row labelled negative may be either; negative: a row
    labelled positive may be either."""
    weight_decay: tuple[float, ...] = Field(default=(1e-1, 1e-2, 1e-3), min_length=1)
    """Of AdamW, to choose from by the PU risk on validation rows, which needs no clean labels."""
    learning_rate: float = Field(default=1e-2, gt=0)
    epochs: int = Field(default=50, gt=0)
    rows_per_step: int = Field(default=512, gt=1)
    standardize: bool = True
    """Columns by mean and spread of the training rows; sparse ones by their spread alone."""


@dataclass(frozen=True)
class FittedPu:
    """A linear score; 0 is its own threshold."""

    scorer: Linear
    chosen: dict[str, float]
    validation_risk: float

    def scores(self, x: Matrix) -> Array:
        """float64 [N]; higher means more surely positive."""
        return self.scorer.scores(as_features(x, "x"))


def pu_risk(
    known_N: Tensor, other_N: Tensor, share: float, *, non_negative: bool = True
) -> tuple[Tensor, bool]:
    """The non-negative PU risk of scores, and whether its second part was clipped at 0.

    Args:
        known_N: scores of known rows (of the side that counts as positive here).
        other_N: scores of the others.
        share: pi, the share of the known side among the others.
    """
    as_positive = share * torch.sigmoid(-known_N).mean()
    rest = torch.sigmoid(other_N).mean() - share * torch.sigmoid(known_N).mean()
    if non_negative and rest < 0:
        return as_positive, True
    return as_positive + rest, False


def fit_pu(
    x_train: Matrix,
    y_train: Any,
    x_validation: Matrix,
    y_validation: Any,
    spec: PuSpec,
    *,
    seed: int = 0,
) -> FittedPu:
    """Fit one label. Labels of the known side are taken as certain, the others as unknown.

    Raises:
        BadSteeringInput: several labels, or a part without known rows or without others.
    """
    x_train, x_validation = as_features(x_train, "x_train"), as_features(x_validation, "x")
    flip = spec.known == "negative"
    is_known_N = _one(y_train, x_train.shape[0], "training") ^ flip
    is_known_V = _one(y_validation, x_validation.shape[0], "validation") ^ flip
    share = 1 - spec.positive_share if flip else spec.positive_share
    scaling = Scaling.of(x_train, standardize=spec.standardize)
    sign = -1.0 if flip else 1.0
    best: tuple[float, Linear, float] | None = None
    for weight_decay in sorted(spec.weight_decay, reverse=True):
        scorer = pu_scorer(x_train, is_known_N ^ flip, scaling, weight_decay, spec, seed)
        score_V = torch.from_numpy(sign * scorer.scores(x_validation))
        risk, _ = pu_risk(score_V[is_known_V], score_V[~is_known_V], share)
        if best is None or float(risk) < best[0]:
            best = (float(risk), scorer, weight_decay)
    assert best is not None, "a grid has at least one setting"
    return FittedPu(best[1], {"weight_decay": best[2]}, best[0])


def pu_scorer(
    x: Matrix, y_N: Array, scaling: Scaling, weight_decay: float, spec: PuSpec, seed: int
) -> Linear:
    """Train with one weight decay; higher scores are more surely positive, whichever is known."""
    flip = spec.known == "negative"
    share = 1 - spec.positive_share if flip else spec.positive_share
    weight_D, bias = _train(x, y_N ^ flip, scaling, share, weight_decay, spec, seed)
    sign = -1.0 if flip else 1.0
    return Linear(*scaling.unscaled(sign * weight_D, sign * bias))


def _one(y: Any, rows: int, part: str) -> Array:
    y_NL = as_labels(y, rows, part)
    if y_NL.shape[1] != 1 or y_NL.all() or not y_NL.any():
        raise BadSteeringInput(
            f"PU learning takes one label with known and other rows; the {part} rows have "
            f"{y_NL.shape[1]} labels, {int(y_NL.sum())} of {y_NL.size} positive"
        )
    return y_NL[:, 0]


def _train(
    x: Matrix,
    is_known_N: Array,
    scaling: Scaling,
    share: float,
    weight_decay: float,
    spec: PuSpec,
    seed: int,
) -> tuple[Array, float]:
    weight_D1 = torch.zeros(x.shape[1], 1, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    groups: list[dict[str, Any]] = [
        {"params": [weight_D1], "weight_decay": weight_decay},
        {"params": [bias]},
    ]
    optimizer = torch.optim.AdamW(groups, spec.learning_rate, weight_decay=0.0)
    random = np.random.default_rng(seed)
    for _ in range(spec.epochs):
        for known, other in _steps(is_known_N, spec.rows_per_step, random):
            known_N, other_N = (
                times_weight(scaled_rows(x[rows], scaling), weight_D1)[:, 0] + bias
                for rows in (known, other)
            )
            risk, clipped = pu_risk(known_N, other_N, share)
            if clipped:
                # Algorithm 1: where the second part went below 0, it is driven up again.
                risk = share * torch.sigmoid(known_N).mean() - torch.sigmoid(other_N).mean()
            optimizer.zero_grad()
            risk.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return weight_D1[:, 0].detach().double().numpy(), float(bias.detach())


def _steps(
    is_known_N: Array, rows_per_step: int, random: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Row numbers of known and of others, dealt out so that every step has both."""
    known = random.permutation(np.flatnonzero(is_known_N))
    other = random.permutation(np.flatnonzero(~is_known_N))
    steps = max(1, min(len(is_known_N) // rows_per_step, len(known), len(other)))
    yield from zip(np.array_split(known, steps), np.array_split(other, steps), strict=True)
