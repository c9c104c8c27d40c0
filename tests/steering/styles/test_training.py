"""A head learns groups, goes on exactly after an interruption, and every loss trains it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steering.styles.centroids import centroids, macro_accuracy, nearest
from steering.styles.losses import LOSSES, LossName
from steering.styles.training import HeadTraining, Recipe


def features(num_groups: int = 5, per_group: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups that differ in a few of many noisy dimensions."""
    generator = torch.Generator().manual_seed(0)
    group_N = torch.arange(num_groups).repeat_interleave(per_group)
    centre_GD = torch.zeros(num_groups, 40)
    centre_GD[:, :6] = torch.randn(num_groups, 6, generator=generator)
    return centre_GD[group_N] + torch.randn(len(group_N), 40, generator=generator), group_N


def accuracy(training: HeadTraining, x_ND: torch.Tensor, group_N: torch.Tensor) -> float:
    train, test = slice(0, None, 2), slice(1, None, 2)
    embedding_NE = training.embed(x_ND)
    point_GE = centroids(embedding_NE[train], group_N[train], 5)
    return macro_accuracy(nearest(embedding_NE[test], point_GE, "cosine"), group_N[test])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_separates_the_groups(loss: LossName) -> None:
    x_ND, group_N = features()
    recipe = Recipe(loss=loss, hidden=(32,), d_out=8, lr=3e-3, batch=120, groups_in_batch=5)
    training = HeadTraining(recipe, x_ND[::2], group_N[::2])
    before = accuracy(training, x_ND, group_N)
    for _ in range(60):
        training.step()
    assert accuracy(training, x_ND, group_N) > max(0.45, before + 0.02)


@pytest.mark.parametrize("loss", ["triplet", "semi_hard"])
def test_a_training_that_goes_on_is_the_one_that_was_never_interrupted(
    loss: LossName, tmp_path: Path
) -> None:
    x_ND, group_N = features()
    recipe = Recipe(loss=loss, hidden=(16,), d_out=4, dropout=0.2, weight_decay=0.01, seed=7)
    whole = HeadTraining(recipe, x_ND, group_N)
    losses = [whole.step() for _ in range(20)]
    first = HeadTraining(recipe, x_ND, group_N)
    for _ in range(9):
        first.step()
    first.save(tmp_path)
    second = HeadTraining(recipe, x_ND, group_N)
    second.load(tmp_path)
    assert [second.step() for _ in range(11)] == losses[9:]
    for name, value in whole.head.state_dict().items():
        assert torch.equal(value, second.head.state_dict()[name])


def test_the_seed_decides_and_nothing_is_drawn_from_torch_s_own_generator() -> None:
    x_ND, group_N = features()
    state = torch.random.get_rng_state()
    one, same = (HeadTraining(Recipe(seed=1), x_ND, group_N) for _ in range(2))
    other = HeadTraining(replace(Recipe(seed=1), seed=2), x_ND, group_N)
    losses = [[training.step() for _ in range(3)] for training in (one, same, other)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(state, torch.random.get_rng_state())
