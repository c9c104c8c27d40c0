"""A group's place in the embedding, and which group an embedding is nearest to. A torch module.

Shape suffixes: N = samples, E = embedding width, G = groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

Aggregator = Literal["mean", "median", "trimmed", "medoid"]
AGGREGATORS: tuple[Aggregator, ...] = get_args(Aggregator)
Distance = Literal["euclidean", "cosine"]

TRIM = 0.1
"""Share of the values cut off at each end, per dimension, by the trimmed mean."""
MAX_MEDOID_SAMPLES = 2048
"""Of a larger group a medoid is looked for among so many, evenly spread over their order."""


def centroids(
    embedding_NE: Tensor, group_N: Tensor, num_groups: int, aggregator: Aggregator = "mean"
) -> Tensor:
    """One point a group, [G, E].

    Args:
        embedding_NE: samples.
        group_N: the group of each, 0 .. num_groups - 1.
        aggregator: `mean`; `median` of each dimension; `trimmed`, the mean without the lowest and
            highest 10% of each dimension; `medoid`, the sample with the least sum of Euclidean
            distances to the others.

    Raises:
        ValueError: a group has no sample.
    """
    points = []
    for group in range(num_groups):
        own_ME = embedding_NE[group_N == group]
        if not len(own_ME):
            raise ValueError(f"group {group} has no sample: it has no centroid")
        points.append(_AGGREGATE[aggregator](own_ME))
    return torch.stack(points)


def _median(own_ME: Tensor) -> Tensor:
    """The middle value, of an even number the mean of the two (torch's takes the lower one)."""
    return own_ME.quantile(0.5, dim=0) if len(own_ME) < 2**16 else own_ME.median(dim=0).values


def _trimmed(own_ME: Tensor) -> Tensor:
    num_cut = int(TRIM * len(own_ME))
    return own_ME.sort(dim=0).values[num_cut : len(own_ME) - num_cut].mean(dim=0)


def _medoid(own_ME: Tensor) -> Tensor:
    stride = -(-len(own_ME) // MAX_MEDOID_SAMPLES)
    some_KE = own_ME[::stride]
    sums_K = torch.cat([torch.cdist(part, own_ME).sum(dim=1) for part in torch.split(some_KE, 256)])
    return some_KE[sums_K.argmin()]


_AGGREGATE: Mapping[Aggregator, Callable[[Tensor], Tensor]] = {
    "mean": lambda own_ME: own_ME.mean(dim=0),
    "median": _median,
    "trimmed": _trimmed,
    "medoid": _medoid,
}


def distances(embedding_NE: Tensor, point_GE: Tensor, distance: Distance) -> Tensor:
    """From each sample to each point, [N, G]; cosine distance is 1 - cosine, within 0 and 2."""
    if distance == "euclidean":
        return torch.cdist(embedding_NE, point_GE)
    unit_NE = torch.nn.functional.normalize(embedding_NE, dim=-1)
    cosine_NG = unit_NE @ torch.nn.functional.normalize(point_GE, dim=-1).T
    return torch.sub(1.0, cosine_NG)


def paired_distances(one_NE: Tensor, other_NE: Tensor, distance: Distance) -> Tensor:
    """From each sample to the one in the same row, [N]."""
    if distance == "euclidean":
        return (one_NE - other_NE).pow(2).sum(dim=-1).sqrt()
    cosine_N: Tensor = torch.cosine_similarity(one_NE, other_NE, dim=-1)
    return 1.0 - cosine_N


def nearest(embedding_NE: Tensor, point_GE: Tensor, distance: Distance) -> Tensor:
    """The group whose point is nearest, [N]; the lower number among equals."""
    return distances(embedding_NE, point_GE, distance).argmin(dim=-1)


def macro_accuracy(predicted_N: Tensor, group_N: Tensor) -> float:
    """Share of right answers in each group, averaged over the groups that have samples."""
    groups = torch.unique(group_N)
    right_N = (predicted_N == group_N).double()
    return float(torch.stack([right_N[group_N == group].mean() for group in groups]).mean())


def confusion(predicted_N: Tensor, group_N: Tensor, num_groups: int) -> Tensor:
    """How many samples of a group (row) were taken for which (column), [G, G]."""
    flat_N = group_N * num_groups + predicted_N
    return torch.bincount(flat_N, minlength=num_groups**2).view(num_groups, num_groups)
