"""Training one regressor on ready features, step by step, so that it can stop and go on anywhere.

A torch module. What a step draws follows from (seed, step) alone. Shape suffixes: N = rows, D =
feature width, A = attributes, B = rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from steering.styles.errors import BadStyleData
from steering.styles.head import Head
from steering.styles.training_state import load_training, save_training

LossName = Literal["mse", "bce", "huber"]

MIN_TRAIN_ROWS = 2


@dataclass(frozen=True)
class RegressionRecipe:
    """How a regressor is trained; everything that a trial may vary."""

    loss: LossName = "mse"
    delta: float = 1.0
    """Of huber: where it turns from squared to absolute, in deviations of the target."""
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.0
    lr: float = 1e-3
    weight_decay: float = 0.01
    batch: int = 64
    train_rows: int | None = None
    """Train on so many rows alone; those of a smaller number are among those of a larger one."""
    seed: int = 0

    @property
    def is_probability(self) -> bool:
        """Whether outputs are logits of probabilities."""
        return self.loss == "bce"


@dataclass(frozen=True)
class Scaling:
    """What a regressor's inputs and outputs are shifted and scaled by, from the rows trained on."""

    mean_D: Tensor
    deviation_D: Tensor
    target_mean_A: Tensor
    target_deviation_A: Tensor
    """Of probabilities: the logit of their mean, so that a new head predicts that, and 1."""


class RegressorTraining:
    """A regressor, its optimizer, and where they are.

    Args:
        x_ND: features of the rows that may be trained on, float32, as the encoder gave them.
        y_NA: their targets.
        items: their items: `train_rows` are taken by whole items, as far as they go.

    Raises:
        BadStyleData: targets outside of 0 and 1 with bce, or fewer rows than are asked for.
    """

    def __init__(
        self,
        recipe: RegressionRecipe,
        x_ND: Tensor,
        y_NA: Tensor,
        items: Sequence[str],
        *,
        standardize: bool = True,
    ) -> None:
        self.recipe = recipe
        self.rows = _chosen_rows(recipe, items)
        """Those that are trained on, ascending."""
        x_ND, y_NA = x_ND[self.rows], y_NA[self.rows]
        if recipe.is_probability and (float(y_NA.min()) < 0 or float(y_NA.max()) > 1):
            raise BadStyleData(
                f"loss=bce needs targets within 0 and 1; they go from {float(y_NA.min()):g} to "
                f"{float(y_NA.max()):g}: rescale them, or use mse or huber"
            )
        self.scaling = _scaling(x_ND, y_NA, recipe, standardize)
        self._x_ND = (x_ND - self.scaling.mean_D) / self.scaling.deviation_D
        self._y_NA = y_NA
        if not recipe.is_probability:
            self._y_NA = (y_NA - self.scaling.target_mean_A) / self.scaling.target_deviation_A
        widths = (x_ND.shape[1], *recipe.hidden, y_NA.shape[1])
        self.head = Head(widths, normalize=False, seed=recipe.seed, dropout=recipe.dropout)
        self._optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.num_steps = 0

    def step(self) -> float:
        """One step; returns its loss."""
        generator = torch.Generator().manual_seed(_mixed(self.recipe.seed, self.num_steps))
        rows_B = torch.randint(len(self.rows), (self.recipe.batch,), generator=generator)
        self.head.train()
        out_BA = self.head(self._x_ND[rows_B], generator)
        loss = self._loss(out_BA, self._y_NA[rows_B])
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.num_steps += 1
        return float(loss.detach())

    def _loss(self, out_BA: Tensor, y_BA: Tensor) -> Tensor:
        if self.recipe.loss == "bce":
            logit_BA = out_BA + self.scaling.target_mean_A
            return torch.nn.functional.binary_cross_entropy_with_logits(logit_BA, y_BA)
        if self.recipe.loss == "huber":
            return torch.nn.functional.huber_loss(out_BA, y_BA, delta=self.recipe.delta)
        return torch.nn.functional.mse_loss(out_BA, y_BA)

    @torch.no_grad()
    def predict(self, x_ND: Tensor) -> Tensor:
        """Target values [N, A] of raw features, as an exported regressor gives them."""
        self.head.eval()
        scaled_ND = (x_ND - self.scaling.mean_D) / self.scaling.deviation_D
        out_NA = torch.cat([self.head(part_ND) for part_ND in torch.split(scaled_ND, 8192)])
        out_NA = out_NA * self.scaling.target_deviation_A + self.scaling.target_mean_A
        return torch.sigmoid(out_NA) if self.recipe.is_probability else out_NA

    def save(self, folder: Path) -> None:
        """Everything that the next step depends on, into an empty folder."""
        parts = {"head": self.head.state_dict()}
        save_training(folder, parts, self._optimizer, {"num_steps": self.num_steps})

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, under the same recipe and the same rows."""
        parts, progress = load_training(folder, self._optimizer)
        self.head.load_state_dict(parts["head"])
        self.num_steps = progress["num_steps"]


def _chosen_rows(recipe: RegressionRecipe, items: Sequence[str]) -> Tensor:
    """Rows to train on: items in an order drawn by the seed, the first rows of that."""
    if recipe.train_rows is None:
        return torch.arange(len(items))
    if not MIN_TRAIN_ROWS <= recipe.train_rows <= len(items):
        raise BadStyleData(
            f"train_rows={recipe.train_rows} is not within {MIN_TRAIN_ROWS} and the "
            f"{len(items)} rows of the training part; lower it, or give more rows"
        )
    names, item_N = np.unique(np.asarray(items, dtype=str), return_inverse=True)
    rank_I = np.random.default_rng(recipe.seed).permutation(len(names))
    order_N = np.argsort(rank_I[item_N], kind="stable")
    return torch.from_numpy(np.sort(order_N[: recipe.train_rows]))


def _scaling(x_ND: Tensor, y_NA: Tensor, recipe: RegressionRecipe, standardize: bool) -> Scaling:
    mean_D, deviation_D = torch.zeros(x_ND.shape[1]), torch.ones(x_ND.shape[1])
    if standardize:
        mean_D, deviation_D = x_ND.mean(0), x_ND.std(0).clamp(min=1e-6)
    if recipe.is_probability:
        logit_A = torch.logit(y_NA.mean(0), eps=1e-3)
        return Scaling(mean_D, deviation_D, logit_A, torch.ones(y_NA.shape[1]))
    # A constant attribute is its mean, and no division blows its noise up.
    deviation_A = y_NA.std(0)
    deviation_A = torch.where(deviation_A > 1e-8, deviation_A, 1.0)
    return Scaling(mean_D, deviation_D, y_NA.mean(0), deviation_A)


def _mixed(seed: int, step: int) -> int:
    """One number for a seed and a step; neighbours are far apart (splitmix64's multiplier)."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9) % 2**63
