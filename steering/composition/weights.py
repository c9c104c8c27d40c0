"""How much of each attribute a group's vector is made of. numpy only.

Shape suffixes: N = texts, G = groups, A = attributes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steering.composition.spec import CompositionSpec
from steering.errors import BadSteeringInput

__all__ = ["GroupWeights", "group_styles", "group_weights", "runner_up_gap"]

Array = np.ndarray[Any, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupWeights:
    """Weights of attributes for each group; each row sums to 1."""

    groups: tuple[str, ...]
    ids: tuple[str, ...]
    """Of the attributes."""
    weight_GA: Array

    @property
    def effective_G(self) -> Array:
        """Effective number of attributes: exp of the weights' entropy."""
        positive = np.where(self.weight_GA > 0, self.weight_GA, 1.0)
        effective_G: Array = np.exp(-(positive * np.log(positive)).sum(axis=1))
        return effective_G

    @property
    def max_G(self) -> Array:
        """The largest weight of each group."""
        max_G: Array = self.weight_GA.max(axis=1)
        return max_G

    def top(self, group: str, count: int = 3) -> list[str]:
        """Ids of the attributes that weigh most, the heaviest first."""
        weight_A = self.weight_GA[self.groups.index(group)]
        order = np.argsort(-weight_A, kind="stable")[:count]
        return [self.ids[place] for place in order if weight_A[place] > 0]


def group_styles(
    style_NA: Array, labels: Sequence[str], aggregator: Literal["median", "mean"] = "median"
) -> tuple[tuple[str, ...], Array]:
    """Names of the groups, sorted, and a style vector for each, [G, A].

    Raises:
        BadSteeringInput: other lengths, or a value that is no number.
    """
    style_NA = np.asarray(style_NA, dtype=np.float64)
    if style_NA.ndim != 2 or len(style_NA) != len(labels) or not len(labels):
        raise BadSteeringInput(
            f"styles of shape {style_NA.shape} for {len(labels)} labels; give [texts, attributes] "
            "and a label for each text"
        )
    if not np.isfinite(style_NA).all():
        rows = np.flatnonzero(~np.isfinite(style_NA).all(axis=1))
        raise BadSteeringInput(
            f"styles hold NaN or infinite numbers in {len(rows)} rows, first row {rows[0]}; score "
            "those texts again or leave them out"
        )
    groups = tuple(sorted(set(labels)))
    label_N, middle = np.asarray(labels), np.median if aggregator == "median" else np.mean
    return groups, np.stack([middle(style_NA[label_N == group], axis=0) for group in groups])


def runner_up_gap(style_GA: Array) -> tuple[Array, Array]:
    """For each attribute the group that has most of it, [A], and its lead over the next, [A]."""
    ordered_GA = np.sort(style_GA, axis=0)
    return style_GA.argmax(axis=0), ordered_GA[-1] - ordered_GA[-2]


def group_weights(
    style_GA: Array, groups: Sequence[str], ids: Sequence[str], spec: CompositionSpec
) -> GroupWeights:
    """Weights softmax(style / tau) for each group, over all attributes or its top k.

    Args:
        style_GA: a style vector for each group, values within 0 and 1.

    Raises:
        BadSteeringInput: fewer than two groups, other lengths, NaN, or a group that leads in no
            attribute (top_k).
    """
    style_GA = np.asarray(style_GA, dtype=np.float64)
    if style_GA.shape != (len(groups), len(ids)) or len(groups) < 2 or not len(ids):
        raise BadSteeringInput(
            f"styles of shape {style_GA.shape} for {len(groups)} groups and {len(ids)} attributes; "
            "give [groups, attributes], of at least two groups"
        )
    if not np.isfinite(style_GA).all():
        raise BadSteeringInput("group styles hold NaN or infinite numbers; score the texts again")
    centred_GA = style_GA - style_GA.mean(axis=0) if spec.centre else style_GA
    takes_part_GA = np.ones(style_GA.shape, dtype=bool)
    if spec.weights == "top_k":
        takes_part_GA = _leaders(style_GA, groups, spec.top_k)
    score_GA = np.where(takes_part_GA, centred_GA / spec.tau, -np.inf)
    odds_GA = np.exp(score_GA - score_GA.max(axis=1, keepdims=True))
    weight_GA = odds_GA / odds_GA.sum(axis=1, keepdims=True)
    return GroupWeights(tuple(groups), tuple(ids), weight_GA)


def _leaders(style_GA: Array, groups: Sequence[str], top_k: int) -> Array:
    """True where an attribute is among those that the group leads by most."""
    winner_A, gap_A = runner_up_gap(style_GA)
    takes_part_GA = np.zeros(style_GA.shape, dtype=bool)
    empty = []
    for place, group in enumerate(groups):
        own = np.flatnonzero((winner_A == place) & (gap_A > 0))
        chosen = own[np.argsort(-gap_A[own], kind="stable")[:top_k]]
        takes_part_GA[place, chosen] = True
        if not len(chosen):
            empty.append(group)
        elif len(chosen) < top_k:
            logger.warning("group %s leads in %d attributes, not %d", group, len(chosen), top_k)
    if empty:
        raise BadSteeringInput(
            f"groups that lead in no attribute have no top {top_k}: {', '.join(empty)}; use "
            "weights: softmax, which takes all attributes, or leave these groups out"
        )
    return takes_part_GA
