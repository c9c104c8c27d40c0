"""Labels flipped at a given rate, and how much a method suffers from it on clean test labels.

Shape suffixes: N = rows, L = labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.errors import BadSteeringInput
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec
from steering.probes.matrices import Array
from steering.probes.method import ProbeMethod
from steering.probes.methods import parse_method
from steering.probes.parts import Judge, Parts, fit_parts, macro_auroc

__all__ = [
    "FLIPS",
    "Flip",
    "NoisePoint",
    "NoiseSweepSpec",
    "flip_labels",
    "noise_point",
    "noise_sweep",
    "planned_points",
]

Flip = Literal["symmetric", "positive_to_negative", "negative_to_positive"]
FLIPS: tuple[Flip, ...] = get_args(Flip)
CHANCE = 0.5
"""Symmetric noise at which labels say nothing."""


class NoiseSweepSpec(BaseModel):
    """Labels made wrong on purpose, and how much the probe suffers from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rates: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.1, 0.2, 0.3), min_length=1
    )
    """Shares of the items whose label is flipped, in training and validation; 0 is measured too."""
    flips: tuple[Flip, ...] = Field(default=FLIPS, min_length=1)
    """symmetric; positive_to_negative: labels were missed; negative_to_positive: false alarms."""
    seeds: int = Field(default=3, ge=1)
    """Draws of each rate; an interval needs 3."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for name in ("rates", "flips"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} names one twice; drop it")
        if "symmetric" in self.flips and max(self.rates) >= CHANCE:
            raise ValueError(
                f"rates={list(self.rates)}: symmetric noise must stay below {CHANCE}, where labels "
                "say nothing; lower the rates, or ask for one-sided flips alone"
            )
        return self


def flip_labels(
    y_NL: Array, rate: float, flip: Flip, *, items: Sequence[Any] | Array, seed: int = 0
) -> Array:
    """Each label of an item flipped with this probability, for all its rows at once.

    Args:
        flip: symmetric; or one-sided: only positives become negative (labels were missed), or only
            negatives become positive (background in a positive item).

    Raises:
        BadSteeringInput: a rate outside 0 to 1.
    """
    if not 0 <= rate <= 1:
        raise BadSteeringInput(f"rate={rate} must lie between 0 and 1")
    _, item_N = np.unique(np.asarray(items, dtype=str), return_inverse=True)
    drawn_UL = np.random.default_rng(seed).random((int(item_N.max()) + 1, y_NL.shape[1])) < rate
    drawn_NL = drawn_UL[item_N]
    if flip == "positive_to_negative":
        drawn_NL &= y_NL
    elif flip == "negative_to_positive":
        drawn_NL &= ~y_NL
    return y_NL ^ drawn_NL


@dataclass(frozen=True)
class NoisePoint:
    """One method at one noise rate with one seed."""

    method: str
    flip: Flip
    rate: float
    seed: int
    test_auroc: float
    """Macro, against clean labels, or as `judge` says; nan where noise left one class only."""
    flipped_share: float
    """Share of the training labels that are wrong."""


def noise_sweep(
    parts: Parts,
    methods: Mapping[str, tuple[str, Mapping[str, Any]]] | Sequence[str],
    *,
    rates: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
    flips: Sequence[Flip] = ("symmetric", "positive_to_negative", "negative_to_positive"),
    seeds: Sequence[int] = (0, 1, 2),
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    judge: Judge = macro_auroc,
) -> list[NoisePoint]:
    """Every method on flipped training and validation labels, tested on clean ones.

    Validation labels are flipped too: who has noisy labels has no clean ones to choose by. Rate 0
    is measured once a seed, under the first of the flips.

    Args:
        methods: names; or what to call each -> its method and parameters.
        judge: of the scores of the test rows.

    Raises:
        BadSteeringInput: an unknown method or flip, a rate outside 0 to 1.
    """
    named = (
        {name: parse_method(*given) for name, given in methods.items()}
        if isinstance(methods, Mapping)
        else {name: parse_method(name) for name in methods}
    )
    unknown = [flip for flip in flips if flip not in FLIPS]
    if unknown:
        raise BadSteeringInput(f"flip={unknown[0]!r} is unknown; known: {', '.join(FLIPS)}")
    return [
        noise_point(parts, name, method, flip, rate, seed, imbalance=imbalance, judge=judge)
        for flip, rate, seed in planned_points(rates, flips, seeds)
        for name, method in named.items()
    ]


def planned_points(
    rates: Sequence[float], flips: Sequence[Flip], seeds: Sequence[int]
) -> list[tuple[Flip, float, int]]:
    """Flip, rate and seed of each fit of a noise sweep; rate 0 under the first flip alone."""
    return [
        (flip, rate, seed)
        for place, flip in enumerate(flips)
        for rate in rates
        if rate != 0 or place == 0
        for seed in seeds
    ]


def noise_point(
    parts: Parts,
    name: str,
    method: ProbeMethod,
    flip: Flip,
    rate: float,
    seed: int,
    *,
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    judge: Judge = macro_auroc,
) -> NoisePoint:
    """One fit of a noise sweep, see `noise_sweep`; `name` is what to call the method."""
    train, validation = (
        flip_labels(part.y_NL, rate, flip, items=part.items, seed=seed * 2 + number)
        for number, part in enumerate((parts.train, parts.validation))
    )
    noisy = parts.with_labels(train, validation, parts.test.y_NL)
    wrong = float((train != parts.train.y_NL).mean())
    if any(y.all(axis=0).any() or not y.any(axis=0).all() for y in (train, validation)):
        return NoisePoint(name, flip, rate, seed, float("nan"), wrong)
    fitted = fit_parts(method, None, noisy, imbalance=imbalance, seed=seed)
    value = judge(fitted.scores(parts.test.x), parts.test.y_NL)
    return NoisePoint(name, flip, rate, seed, value, wrong)
