"""Selectivity: how much better a probe reads real labels than random labels of its types.

Hewitt and Liang 2019: the control task gives each type (of word, of item) a random label that is
the same wherever the type occurs. A probe that can learn those remembers types; what it scores on
real labels says less of the representation. Shape suffixes: N = rows, L = labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.controls.seeds import SeedSummary, over_seeds
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec
from steering.probes.matrices import Array
from steering.probes.method import ProbeMethod
from steering.probes.parts import Judge, Parts, fit_parts, macro_auroc

__all__ = ["Selectivity", "control_labels", "selectivity"]

DRAWS = 50


@dataclass(frozen=True)
class Selectivity:
    """AUROC of real labels less AUROC of the control task."""

    real: SeedSummary
    control: SeedSummary
    difference: SeedSummary
    recurring_share: float
    """Share of the test rows whose type is also in training. At 0 nobody can learn the control
    task: selectivity is then the distance to chance, and no more."""

    def as_json(self) -> dict[str, Any]:
        """Means, intervals and the share."""
        return {
            name: {"mean": one.mean, "low": one.low, "high": one.high, "values": list(one.values)}
            for name, one in (
                ("real", self.real), ("control", self.control), ("difference", self.difference),
            )
        } | {"recurring_share": self.recurring_share}  # fmt: skip


def control_labels(types: Sequence[Any] | Array, share_L: Array, seed: int) -> Array:
    """Random labels, bool [N, L], that follow from (seed, type) alone, whatever part it is in.

    Args:
        share_L: how likely each label is: the share of positives of the real one.
    """
    names, type_N = np.unique(np.asarray(types, dtype=str), return_inverse=True)
    drawn_UL = np.array(
        [[_draw(seed, label, name) for label in range(len(share_L))] for name in names.tolist()]
    )
    return (drawn_UL < share_L)[type_N]


def _draw(seed: int, label: int, name: str) -> float:
    digest = hashlib.blake2b(f"{seed}/{label}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def selectivity(
    method: str | ProbeMethod,
    parameters: Mapping[str, Any] | None,
    parts: Parts,
    types: tuple[Sequence[Any] | Array, ...] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    judge: Judge = macro_auroc,
) -> Selectivity:
    """Fit real labels and the control task with each seed.

    Args:
        types: for the rows of train, validation and test what is alike: token ids for rows that
            are tokens, authors or sources for texts. None for the items.

    Raises:
        BadSteeringInput: fewer than three seeds; too few types to give both labels to each part.
    """
    type_parts = [
        np.asarray(part.items if types is None else types[number], dtype=str)
        for number, part in enumerate(parts.all)
    ]
    real, control = [], []
    for seed in seeds:
        real.append(_judged(method, parameters, parts, imbalance, seed, judge))
        other = _control_parts(parts, type_parts, seed)
        control.append(_judged(method, parameters, other, imbalance, seed, judge))
    return Selectivity(
        over_seeds(real),
        over_seeds(control),
        over_seeds([a - b for a, b in zip(real, control, strict=True)], within=(-1.0, 1.0)),
        float(np.isin(type_parts[2], type_parts[0]).mean()),
    )


def _judged(
    method: str | ProbeMethod,
    parameters: Mapping[str, Any] | None,
    parts: Parts,
    imbalance: ImbalanceSpec | ImbalanceMode,
    seed: int,
    judge: Judge,
) -> float:
    fitted = fit_parts(method, parameters, parts, imbalance=imbalance, seed=seed)
    return judge(fitted.scores(parts.test.x), parts.test.y_NL)


def _control_parts(parts: Parts, types: Sequence[Array], seed: int) -> Parts:
    share_L = parts.train.y_NL.mean(axis=0)
    for draw in range(DRAWS):
        labels = [control_labels(own, share_L, seed * DRAWS + draw) for own in types]
        if all(y.any(axis=0).all() and not y.all(axis=0).any() for y in labels):
            return parts.with_labels(*labels)
    raise BadSteeringInput(
        f"{len(np.unique(np.concatenate(types)))} types are too few for a control task with both "
        "labels in every part; name finer types, or leave selectivity out"
    )
