"""What a style embedding is trained by. Every loss falls when a positive comes nearer.

A torch module. Distances are between embeddings as they are compared: Euclidean distances in units
of the mean distance of the batch's pairs, so that a margin means the same whatever the scale of
the space; cosine distances within 0 and 2, so that a margin above 2 is refused.

Shape suffixes: B = samples in the batch, E = embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal[
    "triplet", "soft_margin", "batch_hard", "semi_hard", "supcon", "multi_similarity"
]
LOSSES: tuple[LossName, ...] = get_args(LossName)
MINED: frozenset[LossName] = frozenset({"batch_hard", "semi_hard", "supcon", "multi_similarity"})
"""Losses over batches of groups; the others take triplets."""
WITH_MARGIN: frozenset[LossName] = frozenset({"triplet", "batch_hard", "semi_hard"})

LossDistance = Literal["euclidean", "squared", "cosine"]
MAX_COSINE_MARGIN = 2.0


def pair_distance(one_BE: Tensor, other_BE: Tensor, distance: LossDistance) -> Tensor:
    """Distance of each row's pair, [B]; Euclidean ones in the units of the embedding."""
    if distance == "cosine":
        return 1.0 - F.cosine_similarity(one_BE, other_BE, dim=-1)
    squared_B = (one_BE - other_BE).pow(2).sum(dim=-1)
    return squared_B if distance == "squared" else (squared_B + 1e-12).sqrt()


def all_distances(embedding_BE: Tensor, distance: LossDistance) -> Tensor:
    """Distance of each sample to each, [B, B]."""
    if distance == "cosine":
        unit_BE = F.normalize(embedding_BE, dim=-1)
        return 1.0 - unit_BE @ unit_BE.T
    dots_BB = embedding_BE @ embedding_BE.T
    norm_B = dots_BB.diagonal()
    squared_BB = (norm_B.unsqueeze(0) - 2 * dots_BB + norm_B.unsqueeze(1)).clamp(min=0)
    return squared_BB if distance == "squared" else (squared_BB + 1e-12).sqrt()


def _in_units(distances: Tensor, distance: LossDistance, unit: Tensor) -> Tensor:
    """Euclidean and squared distances over their mean in the batch, which gets no gradient."""
    return distances if distance == "cosine" else distances / unit.detach().clamp(min=1e-12)


def triplet_loss(
    anchor_BE: Tensor,
    positive_BE: Tensor,
    negative_BE: Tensor,
    distance: LossDistance,
    margin: float | None,
) -> Tensor:
    """mean max(0, d(a, p) - d(a, n) + margin), or softplus(d(a, p) - d(a, n)) without a margin.

    Schroff et al. 2015, eq. 3; Hermans et al. 2017, sec. 2 (soft margin).
    """
    near_B = pair_distance(anchor_BE, positive_BE, distance)
    far_B = pair_distance(anchor_BE, negative_BE, distance)
    unit = torch.cat([near_B, far_B]).mean()
    gap_B = _in_units(near_B - far_B, distance, unit)
    return (F.softplus(gap_B) if margin is None else F.relu(gap_B + margin)).mean()


def batch_hard_loss(
    embedding_BE: Tensor, group_B: Tensor, distance: LossDistance, margin: float
) -> Tensor:
    """Each anchor with its farthest positive and nearest negative; Hermans et al. 2017, eq. 5."""
    distances_BB, same_BB, other_BB = _batch_pairs(embedding_BE, group_B, distance)
    near_B = distances_BB.masked_fill(~same_BB, -torch.inf).amax(dim=1)
    far_B = distances_BB.masked_fill(~other_BB, torch.inf).amin(dim=1)
    usable_B = same_BB.any(1) & other_BB.any(1)
    return F.relu((near_B - far_B)[usable_B] + margin).mean()


def semi_hard_loss(
    embedding_BE: Tensor, group_B: Tensor, distance: LossDistance, margin: float
) -> Tensor:
    """For each positive pair the nearest negative that is farther; Schroff et al. 2015, sec. 3.2.

    Where no negative is farther, the farthest there is.
    """
    distances_BB, same_BB, other_BB = _batch_pairs(embedding_BE, group_B, distance)
    anchor_P, positive_P = same_BB.nonzero(as_tuple=True)
    near_P = distances_BB[anchor_P, positive_P]
    far_PB = distances_BB[anchor_P]
    negative_PB = other_BB[anchor_P]
    farther_PB = negative_PB & (far_PB > near_P.unsqueeze(1))
    nearest_P = far_PB.masked_fill(~farther_PB, torch.inf).amin(dim=1)
    farthest_P = far_PB.masked_fill(~negative_PB, -torch.inf).amax(dim=1)
    far_P = torch.where(farther_PB.any(dim=1), nearest_P, farthest_P)
    usable_P = negative_PB.any(dim=1)
    return F.relu((near_P - far_P)[usable_P] + margin).mean()


def supcon_loss(embedding_BE: Tensor, group_B: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive, over normalised embeddings; Khosla et al. 2020, eq. 2 (L_out)."""
    unit_BE = F.normalize(embedding_BE, dim=-1)
    eye_BB = torch.eye(len(group_B), dtype=torch.bool, device=group_B.device)
    logits_BB = (unit_BE @ unit_BE.T / temperature).masked_fill(eye_BB, -torch.inf)
    same_BB = (group_B.unsqueeze(0) == group_B.unsqueeze(1)) & ~eye_BB
    log_BB = logits_BB - logits_BB.logsumexp(dim=1, keepdim=True)
    usable_B = same_BB.any(dim=1)
    mean_B = log_BB.masked_fill(~same_BB, 0.0).sum(dim=1) / same_BB.sum(dim=1).clamp(min=1)
    return -mean_B[usable_B].mean()


def multi_similarity_loss(
    embedding_BE: Tensor,
    group_B: Tensor,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float = 0.1,
) -> Tensor:
    """Wang et al. 2019, eq. 11 to 13, over cosines, with the paper's mining and its constants."""
    unit_BE = F.normalize(embedding_BE, dim=-1)
    cosine_BB = unit_BE @ unit_BE.T
    eye_BB = torch.eye(len(group_B), dtype=torch.bool, device=group_B.device)
    same_BB = (group_B.unsqueeze(0) == group_B.unsqueeze(1)) & ~eye_BB
    other_BB = group_B.unsqueeze(0) != group_B.unsqueeze(1)
    low_B = cosine_BB.masked_fill(~same_BB, torch.inf).amin(dim=1, keepdim=True)
    high_B = cosine_BB.masked_fill(~other_BB, -torch.inf).amax(dim=1, keepdim=True)
    hard_pos_BB = same_BB & (cosine_BB - epsilon < high_B)
    hard_neg_BB = other_BB & (cosine_BB + epsilon > low_B)
    pull_B = _log1p_sum_exp(-alpha * (cosine_BB - base), hard_pos_BB) / alpha
    push_B = _log1p_sum_exp(beta * (cosine_BB - base), hard_neg_BB) / beta
    return (pull_B + push_B).mean()


def _log1p_sum_exp(values_BB: Tensor, chosen_BB: Tensor) -> Tensor:
    """log(1 + sum of exp over the chosen), [B]."""
    masked_BB = values_BB.masked_fill(~chosen_BB, -torch.inf)
    zero_B1 = torch.zeros_like(values_BB[:, :1])
    return torch.cat([zero_B1, masked_BB], dim=1).logsumexp(dim=1)


def _batch_pairs(
    embedding_BE: Tensor, group_B: Tensor, distance: LossDistance
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances in their units [B, B], which are of one group, which are not."""
    distances_BB = all_distances(embedding_BE, distance)
    eye_BB = torch.eye(len(group_B), dtype=torch.bool, device=group_B.device)
    same_BB = (group_B.unsqueeze(0) == group_B.unsqueeze(1)) & ~eye_BB
    unit = distances_BB[~eye_BB].mean()
    other_BB = group_B.unsqueeze(0) != group_B.unsqueeze(1)
    return _in_units(distances_BB, distance, unit), same_BB, other_BB


def mined_loss(
    name: LossName,
    embedding_BE: Tensor,
    group_B: Tensor,
    distance: LossDistance,
    margin: float,
    temperature: float,
) -> Tensor:
    """A loss of `MINED` over a batch of groups, a scalar."""
    by_name: dict[LossName, Callable[[], Tensor]] = {
        "batch_hard": lambda: batch_hard_loss(embedding_BE, group_B, distance, margin),
        "semi_hard": lambda: semi_hard_loss(embedding_BE, group_B, distance, margin),
        "supcon": lambda: supcon_loss(embedding_BE, group_B, temperature),
        "multi_similarity": lambda: multi_similarity_loss(embedding_BE, group_B),
    }
    return by_name[name]()
