"""Numbers of an embedding that can be compared between losses, distances and margins.

The objective is the macro accuracy of the nearest centroid, with centroids from the rows that were
trained on and samples from others. A torch module. Shape suffixes: N = rows, E = width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steering.intervals import interval_of
from steering.styles.centroids import (
    Aggregator,
    Distance,
    centroids,
    confusion,
    macro_accuracy,
    nearest,
)
from steering.styles.separation import separation, silhouette, triplet_accuracy

Array = np.ndarray[Any, Any]


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
    items: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Everything that is said of a finished embedding, as JSON.

    Args:
        groups: names, in the order of their numbers.
        parents: a group's parent, such as physicist: natural scientist; a group without one is its
            own.
        items: of the other rows; given, accuracies come with 95% intervals over resampled items.

    Returns:
        `accuracy_by_group`, `accuracy_by_corpus`, `parent_accuracy` (right is who names the right
        parent), `confusion` [group, taken for], `confusion_by_parent`, `inter` and `intra`
        distances, `intervals` (name: [low, high]).
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
    names, parent_G = _parents(groups, parents)
    found = {
        "groups": list(groups),
        "rows_by_group": dict(zip(groups, counts_GG.sum(dim=1).tolist(), strict=True)),
        "accuracy_by_group": dict(zip(groups, shares.tolist(), strict=True)),
        "accuracy_by_corpus": by_corpus,
        "macro_accuracy": macro_accuracy(predicted_N, other.group_N),
        "parent_accuracy": macro_accuracy(parent_G[predicted_N], parent_G[other.group_N]),
        "parents": names,
        "parent_of": {group: names[int(n)] for group, n in zip(groups, parent_G, strict=True)},
        "confusion": counts_GG.tolist(),
        "confusion_by_parent": confusion(
            parent_G[predicted_N], parent_G[other.group_N], len(names)
        ).tolist(),
        "inter": apart.inter_GG.tolist(),
        "intra": apart.intra_G.tolist(),
        "intervals": {},
    }
    if items is not None and len(set(items)) > 1:
        found["intervals"] = _intervals(predicted_N, other, parent_G, items)
    return found


def _parents(groups: Sequence[str], parents: Mapping[str, str]) -> tuple[list[str], Tensor]:
    """Names of the parents, and the number of each group's."""
    of_groups = [parents.get(group, group) for group in groups]
    names = list(dict.fromkeys(of_groups))
    return names, torch.tensor([names.index(name) for name in of_groups])


def _intervals(
    predicted_N: Tensor, other: Labelled, parent_G: Tensor, items: Sequence[str]
) -> dict[str, list[float]]:
    """95% of resampled items (Davison and Hinkley 1997, section 3.8)."""
    group_N, parent_N = other.group_N.numpy(), parent_G[other.group_N].numpy()
    right_N = (predicted_N == other.group_N).numpy()
    right_parent_N = (parent_G[predicted_N] == parent_G[other.group_N]).numpy()
    found = {
        "macro_accuracy": _interval(right_N, group_N, items),
        "parent_accuracy": _interval(right_parent_N, parent_N, items),
    }
    for corpus in sorted(set(other.corpora or ())):
        own = np.array([one == corpus for one in other.corpora or ()])
        its = [item for item, is_own in zip(items, own, strict=True) if is_own]
        if len(set(its)) > 1:
            found[f"corpus {corpus}"] = _interval(right_N[own], group_N[own], its)
    return found


def _interval(right_N: Array, group_N: Array, items: Sequence[str]) -> list[float]:
    def macro(rows: Array) -> float:
        counts = np.bincount(group_N[rows])
        rights = np.bincount(group_N[rows], weights=right_N[rows])
        return float((rights[counts > 0] / counts[counts > 0]).mean())

    resamples = 1000 if len(right_N) <= 20_000 else 200
    interval = interval_of(macro, items, resamples=resamples)
    return [interval.low, interval.high]
