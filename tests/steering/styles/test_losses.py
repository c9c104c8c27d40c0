"""Every loss falls when positives come nearer, and says what its paper says."""

from __future__ import annotations

import math

import pytest
import torch

from steering.styles.losses import (
    LOSSES,
    MINED,
    LossDistance,
    LossName,
    batch_hard_loss,
    mined_loss,
    semi_hard_loss,
    supcon_loss,
    triplet_loss,
)

DISTANCES: tuple[LossDistance, ...] = ("euclidean", "squared", "cosine")


def blobs(spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Four groups around points of their own; a small spread keeps them apart."""
    generator = torch.Generator().manual_seed(seed)
    centre_GE = torch.randn(4, 8, generator=generator)
    group_B = torch.arange(4).repeat_interleave(6)
    noise_BE = torch.randn(24, 8, generator=generator)
    return centre_GE[group_B] + spread * noise_BE, group_B


def loss_of(name: LossName, spread: float, distance: LossDistance) -> float:
    embedding_BE, group_B = blobs(spread)
    if name in MINED:
        return float(mined_loss(name, embedding_BE, group_B, distance, 0.5, 0.1))
    anchor, positive, negative = embedding_BE[:5], embedding_BE[1:6], embedding_BE[6:11]
    margin = 0.5 if name == "triplet" else None
    return float(triplet_loss(anchor, positive, negative, distance, margin))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", LOSSES)
def test_groups_that_lie_apart_have_the_lower_loss(name: LossName, distance: LossDistance) -> None:
    assert loss_of(name, 0.05, distance) < loss_of(name, 1.0, distance)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_gradient_brings_positives_nearer(
    name: LossName, distance: LossDistance
) -> None:
    embedding_BE, group_B = blobs(0.8, seed=1)
    embedding_BE.requires_grad_()
    if name in MINED:
        loss = mined_loss(name, embedding_BE, group_B, distance, 0.5, 0.1)
    else:
        margin = 0.5 if name == "triplet" else None
        rows = torch.arange(24)
        same, other = embedding_BE[rows ^ 1], embedding_BE[(rows + 6) % 24]
        loss = triplet_loss(embedding_BE, same, other, distance, margin)
    torch.autograd.backward(loss)
    assert embedding_BE.grad is not None
    moved_BE = (embedding_BE - 0.05 * embedding_BE.grad / embedding_BE.grad.norm()).detach()

    def within_over_between(points_BE: torch.Tensor) -> float:
        unit_BE = torch.nn.functional.normalize(points_BE, dim=-1)
        distances_BB = torch.cdist(unit_BE, unit_BE)
        same_BB = group_B.unsqueeze(0) == group_B.unsqueeze(1)
        return float(distances_BB[same_BB].mean() / distances_BB[~same_BB].mean())

    assert within_over_between(moved_BE) < within_over_between(embedding_BE.detach())


def test_a_triplet_by_hand() -> None:
    a, p, n = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 15.0]])
    # d = 5 and 15, mean 10: (0.5 - 1.5 + m)
    assert float(triplet_loss(a, p, n, "euclidean", 1.5)) == pytest.approx(0.5)
    assert float(triplet_loss(a, p, n, "euclidean", 0.5)) == 0.0
    assert float(triplet_loss(a, p, n, "euclidean", None)) == pytest.approx(
        math.log1p(math.exp(-1.0)), rel=1e-5
    )
    # squared: 25 and 225, mean 125
    assert float(triplet_loss(a, p, n, "squared", 2.0)) == pytest.approx(2.0 - 200 / 125)


def test_a_margin_means_the_same_at_every_scale() -> None:
    embedding_BE, group_B = blobs(1.0)
    for loss in (batch_hard_loss, semi_hard_loss):
        small = loss(embedding_BE, group_B, "euclidean", 0.3)
        large = loss(100 * embedding_BE, group_B, "euclidean", 0.3)
        assert float(small) == pytest.approx(float(large), rel=1e-4)


def test_supcon_by_its_formula() -> None:
    embedding_BE, group_B = blobs(0.7, seed=3)
    unit_BE = torch.nn.functional.normalize(embedding_BE.double(), dim=-1)
    total = 0.0
    for i in range(24):
        exps = [math.exp(float(unit_BE[i] @ unit_BE[a]) / 0.2) for a in range(24) if a != i]
        positives = [p for p in range(24) if p != i and group_B[p] == group_B[i]]
        logs = [float(unit_BE[i] @ unit_BE[p]) / 0.2 - math.log(sum(exps)) for p in positives]
        total -= sum(logs) / len(positives)
    assert float(supcon_loss(embedding_BE.double(), group_B, 0.2)) == pytest.approx(total / 24)


def test_the_semi_hard_negative_is_the_nearest_that_is_farther() -> None:
    # One pair of group 0 at distance 2; negatives of the anchor at 1, 3, 9 (and of the other one).
    points = torch.tensor([[0.0], [2.0], [-1.0], [-3.0], [-9.0]])
    group_B = torch.tensor([0, 0, 1, 2, 3])
    distances = torch.cdist(points, points)
    unit = distances[~torch.eye(5, dtype=torch.bool)].mean()
    first = torch.relu((2.0 - 3.0) / unit + 0.5)  # anchor 0: negative at 3
    second = torch.relu((2.0 - 3.0) / unit + 0.5)  # anchor at 2: negatives at 3, 5, 11
    expected = float((first + second) / 2)
    assert float(semi_hard_loss(points, group_B, "euclidean", 0.5)) == pytest.approx(expected)
