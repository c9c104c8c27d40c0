"""Training one head on ready features, step by step, so that it can stop and go on anywhere.

A torch module. What a step draws follows from (seed, step) alone: a training that goes on from a
saved state is the one that was never interrupted, bit for bit on one machine.

Shape suffixes: N = rows, D = feature width, E = embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from steering.styles.head import Head
from steering.styles.losses import (
    MINED,
    WITH_MARGIN,
    LossDistance,
    LossName,
    mined_loss,
    triplet_loss,
)
from steering.styles.training_state import load_training, save_training
from steering.styles.triplets import Pool, TripletSampler, group_batch


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; everything that a trial may vary."""

    loss: LossName = "triplet"
    distance: LossDistance = "euclidean"
    margin: float = 0.5
    """For losses with one; Euclidean ones in units of the mean pair distance."""
    temperature: float = 0.1
    """Of supcon."""
    hidden: tuple[int, ...] = (256,)
    d_out: int = 64
    normalize: bool = False
    dropout: float = 0.0
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 256
    """Triplets, or samples of a batch for mining."""
    groups_in_batch: int = 8
    pool: Pool = "mixed"
    seed: int = 0


def step_generator(seed: int, step: int) -> torch.Generator:
    """What a step draws by follows from (seed, step) alone."""
    return torch.Generator().manual_seed(mixed(seed, step))


def draw_rows(
    recipe: Recipe, sampler: TripletSampler, group_N: Tensor, generator: torch.Generator
) -> Tensor:
    """Rows of one step: a batch of groups, or anchors, positives and negatives in three thirds."""
    if recipe.loss in MINED:
        per_group = max(2, recipe.batch // recipe.groups_in_batch)
        return group_batch(group_N, recipe.groups_in_batch, per_group, generator)
    drawn = sampler.draw(recipe.batch, generator)
    return torch.cat([drawn.anchor_T, drawn.positive_T, drawn.negative_T])


def loss_of(recipe: Recipe, embedding_RE: Tensor, group_R: Tensor) -> Tensor:
    """The loss, a scalar, of the embeddings of what `draw_rows` gave."""
    if recipe.loss in MINED:
        return mined_loss(
            recipe.loss,
            embedding_RE,
            group_R,
            recipe.distance,
            recipe.margin,
            recipe.temperature,
        )
    anchor_BE, positive_BE, negative_BE = embedding_RE.chunk(3)
    margin = recipe.margin if recipe.loss in WITH_MARGIN else None
    return triplet_loss(anchor_BE, positive_BE, negative_BE, recipe.distance, margin)


class HeadTraining:
    """A head, its optimizer, and where they are.

    Args:
        x_ND: features of the rows to train on, float32.
        group_N: their groups.

    Raises:
        ValueError: no triplet can be drawn.
    """

    def __init__(self, recipe: Recipe, x_ND: Tensor, group_N: Tensor) -> None:
        self.recipe, self._x_ND, self._group_N = recipe, x_ND, group_N
        self._sampler = TripletSampler(group_N, recipe.pool, recipe.seed)
        widths = (x_ND.shape[1], *recipe.hidden, recipe.d_out)
        self.head = Head(
            widths, normalize=recipe.normalize, seed=recipe.seed, dropout=recipe.dropout
        )
        self._optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.num_steps = 0
        self.num_triplets = self._sampler.num_triplets
        """Different triplets that the pool allows."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row could have been an anchor once."""
        return max(1, -(-len(self._sampler.anchors) // self.recipe.batch))

    def step(self) -> float:
        """One step; returns its loss."""
        generator = step_generator(self.recipe.seed, self.num_steps)
        self.head.train()
        rows = draw_rows(self.recipe, self._sampler, self._group_N, generator)
        embedding_RE = self.head(self._x_ND[rows], generator)
        loss = loss_of(self.recipe, embedding_RE, self._group_N[rows])
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.num_steps += 1
        return float(loss.detach())

    @torch.no_grad()
    def embed(self, x_ND: Tensor) -> Tensor:
        """Embeddings [N, E] as they are compared, in chunks that bound the memory."""
        self.head.eval()
        return torch.cat([self.head(part_ND) for part_ND in torch.split(x_ND, 8192)])

    def save(self, folder: Path) -> None:
        """Everything that the next step depends on, into an empty folder."""
        parts = {"head": self.head.state_dict()}
        save_training(folder, parts, self._optimizer, {"num_steps": self.num_steps})

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, under the same recipe and the same rows."""
        parts, progress = load_training(folder, self._optimizer)
        self.head.load_state_dict(parts["head"])
        self.num_steps = progress["num_steps"]


def mixed(seed: int, step: int) -> int:
    """One number for a seed and a step; neighbours are far apart (splitmix64's multiplier)."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9) % 2**63
