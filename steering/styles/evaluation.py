"""Numbers of an embedding that can be compared between losses, distances and margins.

The objective is the macro accuracy of the nearest centroid, with centroids from the rows that were
trained on and samples from others. A torch module. Shape suffixes: N = rows, E = width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steering.styles.centroids import (
    Aggregator,
    Distance,
    centroids,
    confusion,
    macro_accuracy,
    nearest,
)
from steering.styles.separation import separation, silhouette, triplet_accuracy


@dataclass(frozen=True)
class Labelled:
    """Embeddings of some rows, with what is known of each."""

    embedding_NE: Tensor
    group_N: Tensor
    """0 .. groups - 1, the same numbers for every part."""
    corpora: Sequence[str] | None = None


def objective(
    train: Labelled, other: Labelled, num_groups: int, aggregator: Aggregator, distance: Distance
) -> dict[str, float]:
    """The objective and its tie-breakers, of rows that were not trained on.

    Returns:
        `macro_accuracy`, `triplet_accuracy`, `silhouette`, and `separation`, the mean distance
        between groups over that within one. All but the last lie within 0 (or -1) and 1, and none
        changes when distances are rescaled.
    """
    point_GE = centroids(train.embedding_NE, train.group_N, num_groups, aggregator)
    predicted_N = nearest(other.embedding_NE, point_GE, distance)
    return {
        "macro_accuracy": macro_accuracy(predicted_N, other.group_N),
        "triplet_accuracy": triplet_accuracy(other.embedding_NE, other.group_N, distance),
        "silhouette": silhouette(other.embedding_NE, other.group_N, distance),
        "separation": separation(other.embedding_NE, other.group_N, num_groups, distance).ratio,
    }


def report(
    train: Labelled,
    other: Labelled,
    groups: Sequence[str],
    aggregator: Aggregator,
    distance: Distance,
    parents: Mapping[str, str],
) -> dict[str, Any]:
    """Everything that is said of a finished embedding, as JSON.

    Args:
        groups: names, in the order of their numbers.
        parents: a group's parent, such as physicist: natural scientist; a group without one is its
            own.

    Returns:
        `accuracy_by_group`, `accuracy_by_corpus`, `parent_accuracy` (right is who names the right
        parent), `confusion` [group, taken for], `inter` and `intra` distances.
    """
    point_GE = centroids(train.embedding_NE, train.group_N, len(groups), aggregator)
    predicted_N = nearest(other.embedding_NE, point_GE, distance)
    counts_GG = confusion(predicted_N, other.group_N, len(groups))
    apart = separation(other.embedding_NE, other.group_N, len(groups), distance)
    shares = counts_GG.diagonal() / counts_GG.sum(dim=1).clamp(min=1)
    by_corpus = {}
    for corpus in sorted(set(other.corpora or ())):
        own_N = torch.tensor([one == corpus for one in other.corpora or ()])
        by_corpus[corpus] = macro_accuracy(predicted_N[own_N], other.group_N[own_N])
    return {
        "groups": list(groups),
        "accuracy_by_group": dict(zip(groups, shares.tolist(), strict=True)),
        "accuracy_by_corpus": by_corpus,
        "parent_accuracy": _parent_accuracy(predicted_N, other.group_N, groups, parents),
        "confusion": counts_GG.tolist(),
        "inter": apart.inter_GG.tolist(),
        "intra": apart.intra_G.tolist(),
    }


def _parent_accuracy(
    predicted_N: Tensor, group_N: Tensor, groups: Sequence[str], parents: Mapping[str, str]
) -> float:
    names = [parents.get(group, group) for group in groups]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    parent_G = torch.tensor([numbers[name] for name in names])
    return macro_accuracy(parent_G[predicted_N], parent_G[group_N])
