"""How well groups lie apart, in numbers that do not change when distances are rescaled.

A torch module. Shape suffixes: N = samples, E = embedding width, G = groups, P = pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steering.styles.centroids import Distance, centroids, distances, paired_distances
from steering.styles.triplets import TripletSampler

MAX_SILHOUETTE_SAMPLES = 4000
"""Of more samples so many are drawn: the silhouette needs all pairs."""


@dataclass(frozen=True)
class Separation:
    """Distances within and between groups."""

    inter_GG: Tensor
    """Between the groups' mean points."""
    intra_G: Tensor
    """Mean distance of a group's samples to its mean point."""

    @property
    def ratio(self) -> float:
        """Mean distance between groups over the mean distance within one."""
        G = len(self.intra_G)
        between = self.inter_GG.sum() / max(1, G * (G - 1))
        return float(between / self.intra_G.mean().clamp(min=1e-12))


def separation(embedding_NE: Tensor, group_N: Tensor, num_groups: int, d: Distance) -> Separation:
    """Distances within and between groups, around their mean points."""
    point_GE = centroids(embedding_NE, group_N, num_groups)
    to_own_N = distances(embedding_NE, point_GE, d).gather(1, group_N.unsqueeze(1)).squeeze(1)
    intra_G = torch.stack([to_own_N[group_N == group].mean() for group in range(num_groups)])
    inter_GG = distances(point_GE, point_GE, d)
    inter_GG.fill_diagonal_(0.0)
    return Separation(inter_GG, intra_G)


def triplet_accuracy(embedding_NE: Tensor, group_N: Tensor, d: Distance, seed: int = 0) -> float:
    """P(d(anchor, positive) < d(anchor, negative)), one random triplet an anchor; ties count half.

    The AUC of distances as a test of "same group".
    """
    sampler = TripletSampler(group_N.cpu())
    drawn = sampler.of(sampler.anchors, torch.Generator().manual_seed(seed))
    anchor_TE = embedding_NE[drawn.anchor_T]
    near_T = paired_distances(anchor_TE, embedding_NE[drawn.positive_T], d)
    far_T = paired_distances(anchor_TE, embedding_NE[drawn.negative_T], d)
    return float(((near_T < far_T).double() + 0.5 * (near_T == far_T).double()).mean())


def silhouette(embedding_NE: Tensor, group_N: Tensor, d: Distance, seed: int = 0) -> float:
    """Mean silhouette (Rousseeuw 1987) by scikit-learn, over at most 4,000 samples."""
    from sklearn.metrics import silhouette_score

    if len(embedding_NE) > MAX_SILHOUETTE_SAMPLES:
        generator = torch.Generator().manual_seed(seed)
        some = torch.randperm(len(embedding_NE), generator=generator)[:MAX_SILHOUETTE_SAMPLES]
        embedding_NE, group_N = embedding_NE[some], group_N[some]
    if not 1 < len(torch.unique(group_N)) < len(group_N):
        return float("nan")
    return float(silhouette_score(embedding_NE.cpu().numpy(), group_N.cpu().numpy(), metric=d))
