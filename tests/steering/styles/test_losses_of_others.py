"""Where pytorch-metric-learning defines a loss as we do, both give the same number and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from steering.styles.losses import (
    all_distances,
    batch_hard_loss,
    multi_similarity_loss,
    semi_hard_loss,
    supcon_loss,
    triplet_loss,
)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centre_GE = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    group_B = torch.arange(5).repeat_interleave(6)
    noise_BE = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    return centre_GE[group_B] + 0.9 * noise_BE, group_B


def of_euclidean_unit(embedding_BE: torch.Tensor) -> torch.Tensor:
    """Theirs knows no unit: divided by ours beforehand, Euclidean distances are the same."""
    off = ~torch.eye(len(embedding_BE), dtype=torch.bool)
    unit = all_distances(embedding_BE, "euclidean")[off].mean().detach()
    return embedding_BE / unit


def their_supcon(embedding_BE: torch.Tensor, group_B: torch.Tensor) -> torch.Tensor:
    return losses.SupConLoss(temperature=0.2)(embedding_BE, group_B)


def their_multi_similarity(embedding_BE: torch.Tensor, group_B: torch.Tensor) -> torch.Tensor:
    pairs = miners.MultiSimilarityMiner(epsilon=0.1)(embedding_BE, group_B)
    loss = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    return loss(embedding_BE, group_B, pairs)


def their_batch_hard(embedding_BE: torch.Tensor, group_B: torch.Tensor) -> torch.Tensor:
    plain = distances.LpDistance(normalize_embeddings=False, p=2)
    scaled_BE = of_euclidean_unit(embedding_BE)
    triplets = miners.BatchHardMiner(distance=plain)(scaled_BE, group_B)
    loss = losses.TripletMarginLoss(margin=0.5, distance=plain, reducer=reducers.MeanReducer())
    return loss(scaled_BE, group_B, triplets)


CASES: dict[str, tuple[Loss, Loss]] = {
    "supcon": (lambda x, g: supcon_loss(x, g, 0.2), their_supcon),
    "multi_similarity": (multi_similarity_loss, their_multi_similarity),
    "batch_hard": (lambda x, g: batch_hard_loss(x, g, "euclidean", 0.5), their_batch_hard),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_loss_and_gradient_are_theirs(name: str) -> None:
    embedding_BE, group_B = batch()
    found = []
    for loss_of in CASES[name]:
        x_BE = embedding_BE.clone().requires_grad_()
        loss = loss_of(x_BE, group_B)
        torch.autograd.backward(loss)
        assert x_BE.grad is not None
        found.append((float(loss.detach()), x_BE.grad))
    (ours, our_gradient), (theirs, their_gradient) = found
    assert ours == pytest.approx(theirs, rel=1e-6)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("margin", [0.2, None])
def test_triplets_are_theirs_over_cosines(margin: float | None) -> None:
    embedding_BE, group_B = batch()
    anchor, positive, negative = torch.arange(30), torch.arange(30) ^ 1, (torch.arange(30) + 6) % 30
    assert (group_B[anchor] == group_B[positive]).all()
    theirs = losses.TripletMarginLoss(
        margin=margin or 0.0,
        smooth_loss=margin is None,
        distance=distances.CosineSimilarity(),
        reducer=reducers.MeanReducer(),
    )(embedding_BE, group_B, (anchor, positive, negative))
    ours = triplet_loss(
        embedding_BE[anchor], embedding_BE[positive], embedding_BE[negative], "cosine", margin
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_semi_hard_negatives_are_among_theirs() -> None:
    """Their miner gives all triplets within the margin, ours the nearest negative beyond."""
    embedding_BE, group_B = batch()
    scaled_BE = of_euclidean_unit(embedding_BE)
    plain = distances.LpDistance(normalize_embeddings=False, p=2)
    margin = 5.0
    miner = miners.TripletMarginMiner(margin, type_of_triplets="semihard", distance=plain)
    anchors, positives, negatives = miner(scaled_BE, group_B)
    distance_BB = torch.cdist(scaled_BE, scaled_BE)
    nearest: dict[tuple[int, int], float] = {}
    for a, p, n in zip(anchors.tolist(), positives.tolist(), negatives.tolist(), strict=True):
        nearest[a, p] = min(nearest.get((a, p), torch.inf), float(distance_BB[a, n]))
    found = []
    for a, p in (group_B.unsqueeze(0) == group_B.unsqueeze(1)).nonzero().tolist():
        if a != p:
            others = distance_BB[a][group_B != group_B[a]]
            far = nearest.get((a, p), float(others.max()))  # where none is farther: the farthest
            found.append(max(0.0, float(distance_BB[a, p]) - far + margin))
    ours = semi_hard_loss(embedding_BE, group_B, "euclidean", margin)
    assert float(ours) == pytest.approx(sum(found) / len(found), rel=1e-6)
