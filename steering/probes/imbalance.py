"""Rare labels: weights of training rows, and thresholds tuned on validation rows.

Every mode is a weight of each row, so that any method takes it; `oversample` is a weight that
counts copies. Weights are scaled to a mean of 1: the strength C of a penalty means the same in
every mode.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array

__all__ = [
    "IMBALANCE_MODES",
    "ImbalanceMode",
    "ImbalanceSpec",
    "best_f1_threshold",
    "oversampled_rows",
    "positive_weight",
    "sample_weights",
    "tune_thresholds",
]

ImbalanceMode = Literal["none", "pos_weight", "sqrt", "capped", "effective_number", "oversample"]
IMBALANCE_MODES: tuple[ImbalanceMode, ...] = get_args(ImbalanceMode)


class ImbalanceSpec(BaseModel):
    """How much more a rare label's positives count in training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    mode: ImbalanceMode = "none"
    """none; pos_weight (negatives / positives); sqrt (its root); capped (at most `cap`);
    effective_number (Cui et al. 2019, eq. 2); oversample (rows of the rare side drawn again, until
    both sides are equally many)."""
    cap: float = Field(default=10.0, ge=1)
    """Largest weight of `capped`, and its inverse the smallest."""
    beta: float = Field(default=0.999, ge=0, lt=1)
    """Of effective_number: near 1 it is pos_weight, at 0 it is none."""


def positive_weight(num_positive: int, num_negative: int, spec: ImbalanceSpec) -> float:
    """What a positive counts, where a negative counts 1.

    Raises:
        BadSteeringInput: one of the two sides is empty.
    """
    if num_positive < 1 or num_negative < 1:
        raise BadSteeringInput(
            f"{num_positive} positive and {num_negative} negative rows: both are needed to train; "
            "drop the label or gather more data"
        )
    ratio = num_negative / num_positive
    if spec.mode in ("pos_weight", "oversample"):
        return ratio
    if spec.mode == "sqrt":
        return float(np.sqrt(ratio))
    if spec.mode == "capped":
        return float(np.clip(ratio, 1 / spec.cap, spec.cap))
    if spec.mode == "effective_number":
        # (1 - beta^n) / (1 - beta) rows of a class are told apart; the weight is its inverse.
        return float((1 - spec.beta**num_negative) / (1 - spec.beta**num_positive))
    return 1.0


def sample_weights(y_N: Array, spec: ImbalanceSpec | ImbalanceMode, seed: int = 0) -> Array:
    """Weight of each training row, float64 [N], mean 1.

    Args:
        y_N: bool.
        seed: of the draws of `oversample`; other modes draw nothing.

    Raises:
        BadSteeringInput: one of the two sides is empty.
    """
    spec = spec if isinstance(spec, ImbalanceSpec) else ImbalanceSpec(mode=spec)
    weight = positive_weight(int(y_N.sum()), int((~y_N).sum()), spec)
    if spec.mode == "oversample":
        weight_N = np.bincount(oversampled_rows(y_N, seed), minlength=len(y_N)).astype(np.float64)
    else:
        weight_N = np.where(y_N, weight, 1.0)
    return weight_N / weight_N.mean()


def oversampled_rows(y_N: Array, seed: int = 0) -> Array:
    """All rows, then rows of the rarer side drawn with replacement until both are as many."""
    positive, negative = np.flatnonzero(y_N), np.flatnonzero(~y_N)
    rare, frequent = sorted((positive, negative), key=len)
    drawn = np.random.default_rng(seed).choice(rare, len(frequent) - len(rare))
    return np.concatenate([np.arange(len(y_N)), drawn])


def best_f1_threshold(score_N: Array, y_N: Array) -> float:
    """The score from which on a row is called positive, for the largest F1.

    It lies half-way to the next lower score, so that the same score in float32 stays above it. Of
    equal F1 the highest threshold counts. Without positives nothing is called positive.
    """
    if not y_N.any():
        return float("inf")
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    hits_N = np.cumsum(y_N[order_N])
    ends = np.flatnonzero(np.append(np.diff(sorted_N) != 0, True))
    f1 = 2 * hits_N[ends] / (ends + 1 + y_N.sum())
    last = int(ends[np.argmax(f1)])
    if last == len(sorted_N) - 1:
        return float(np.nextafter(sorted_N[last], -np.inf))
    return float((sorted_N[last] + sorted_N[last + 1]) / 2)


def tune_thresholds(score_NL: Array, y_NL: Array) -> Array:
    """`best_f1_threshold` of each label [L], from validation rows, never from test rows."""
    return np.array([best_f1_threshold(s, y) for s, y in zip(score_NL.T, y_NL.T, strict=True)])
