"""Training a text encoder together with its head, step by step. A torch module.

As for heads alone, what a step draws follows from (seed, step), dropout included. A batch of more
tokens than fit is passed in parts: first without a gradient, to get the loss's gradient at each
text's features, then part by part with it (Gao et al. 2021, arXiv 2101.06983). Both passes draw
the same dropout, so the step is the one that a single pass would make.

Shape suffixes: N = rows, U = different texts of a batch, R = rows drawn, D and E = widths of
features and embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steering.styles.head import Head
from steering.styles.lora import Lora, add_lora
from steering.styles.text_encoder import TextEncoder
from steering.styles.training import (
    Recipe,
    draw_rows,
    loss_of,
    mixed,
    step_generator,
)
from steering.styles.training_state import load_training, save_training
from steering.styles.triplets import TripletSampler

__all__ = ["TextTraining", "Tuning"]

logger = logging.getLogger(__name__)

MAX_NORM = 1.0
"""Gradients of the encoder are clipped to it, as in its pretraining (Devlin et al. 2019's code)."""
WARM_UP_STEPS = 100
"""Over so many steps, at most an epoch, the encoder's learning rate rises: the head starts from
random weights, and what it tells the encoder at first means nothing."""
SMALLEST_PASS_TOKENS = 64


@dataclass(frozen=True)
class Tuning:
    """How the encoder is trained."""

    kind: Literal["whole", "lora"]
    lr: float = 5e-5
    lora: Lora = Lora()
    gradient_checkpointing: bool = False


class TextTraining:
    """An encoder and a head, their optimizer, and where they are.

    Args:
        encoder: freshly loaded; it is changed.
        texts: of the rows to train on.
        group_N: their groups.
        mean_D: with `deviation_D` what features are shifted and scaled by before the head.

    Raises:
        ValueError: no triplet can be drawn.
        BadStyleData: the encoder has no such modules to adapt, or a text has no token.
    """

    def __init__(
        self,
        recipe: Recipe,
        tuning: Tuning,
        encoder: TextEncoder,
        texts: Sequence[str],
        group_N: Tensor,
        mean_D: Tensor,
        deviation_D: Tensor,
    ) -> None:
        self.recipe, self.tuning, self.encoder = recipe, tuning, encoder
        self._group_N = group_N
        self._sampler = TripletSampler(group_N, recipe.pool, recipe.seed)
        self._ids = encoder.tokenize(texts)
        self.num_cut = encoder.num_cut
        """Texts that were cut for being too long."""
        device = encoder.device
        self._mean_D, self._deviation_D = mean_D.to(device), deviation_D.to(device)
        widths = (len(mean_D), *recipe.hidden, recipe.d_out)
        self.head = Head(
            widths, normalize=recipe.normalize, seed=recipe.seed, dropout=recipe.dropout
        ).to(device)
        _make_trainable(encoder, tuning, recipe.seed)
        model = encoder.model
        self._tuned = {name: w for name, w in model.named_parameters() if w.requires_grad}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(self.head.parameters()), "lr": recipe.lr},
                {"params": list(self._tuned.values()), "lr": tuning.lr},
            ],
            weight_decay=recipe.weight_decay,
        )
        self.num_steps = 0
        self.num_triplets = self._sampler.num_triplets
        """Different triplets that the pool allows."""
        self.num_trained = sum(weight.numel() for weight in self._tuned.values())
        """Numbers of the encoder that are trained."""
        self.num_parameters = sum(weight.numel() for weight in model.parameters())

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row could have been an anchor once."""
        return max(1, -(-len(self._sampler.anchors) // self.recipe.batch))

    def step(self) -> float:
        """One step; returns its loss.

        Raises:
            torch.OutOfMemoryError: a single text does not fit.
        """
        while True:
            try:
                loss = self._loss_with_gradient()
                break
            except torch.OutOfMemoryError:
                if self.encoder.batch_tokens <= SMALLEST_PASS_TOKENS:
                    raise
            self.encoder.batch_tokens = max(SMALLEST_PASS_TOKENS, self.encoder.batch_tokens // 2)
            torch.cuda.empty_cache()
            logger.warning(
                "out of memory: passes of at most %d tokens from here on",
                self.encoder.batch_tokens,
            )
        nn.utils.clip_grad_norm_(self._tuned.values(), MAX_NORM)
        share = min(1.0, (self.num_steps + 1) / min(WARM_UP_STEPS, self.steps_per_epoch))
        self._optimizer.param_groups[1]["lr"] = self.tuning.lr * share
        self._optimizer.step()
        self.num_steps += 1
        return loss

    def _loss_with_gradient(self) -> float:
        self._optimizer.zero_grad()
        self.encoder.model.train()
        self.head.train()
        generator = step_generator(self.recipe.seed, self.num_steps)
        rows_R = draw_rows(self.recipe, self._sampler, self._group_N, generator)
        text_U, place_R = torch.unique(rows_R, return_inverse=True)
        ids = [self._ids[row] for row in text_U.tolist()]
        parts = list(self.encoder.parts(ids))
        if len(parts) == 1:
            features_UD = self._features(ids, parts, 0)
            loss = self._loss(features_UD, parts, place_R, rows_R, generator)
            torch.autograd.backward(loss)
            return float(loss.detach())
        with torch.no_grad():
            kept = [self._features(ids, parts, number) for number in range(len(parts))]
        features_UD = torch.cat(kept).requires_grad_()
        loss = self._loss(features_UD, parts, place_R, rows_R, generator)
        torch.autograd.backward(loss)
        assert features_UD.grad is not None
        gradients = torch.split(features_UD.grad, [len(part) for part in parts])
        for number, gradient_PD in enumerate(gradients):
            torch.autograd.backward(self._features(ids, parts, number), gradient_PD)
        return float(loss.detach())

    def _features(self, ids: list[list[int]], parts: list[list[int]], number: int) -> Tensor:
        """Features of one part, [its texts, D]; dropout by (seed, step, part)."""
        with _seeded(mixed(mixed(self.recipe.seed, self.num_steps), number + 1)):
            return self.encoder([ids[place] for place in parts[number]])

    def _loss(
        self,
        features_UD: Tensor,
        parts: list[list[int]],
        place_R: Tensor,
        rows_R: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss, of features in the order of the parts."""
        order = torch.tensor([place for part in parts for place in part])
        where_U = torch.empty_like(order)
        where_U[order] = torch.arange(len(order))
        device = features_UD.device
        x_UD = (features_UD - self._mean_D) / self._deviation_D
        x_RD = x_UD[where_U[place_R].to(device)]
        embedding_RE = self.head(x_RD, generator)
        return loss_of(self.recipe, embedding_RE, self._group_N[rows_R].to(device))

    def features(self, texts: Sequence[str] | None = None) -> Tensor:
        """Features [N, D] on the CPU, by the encoder as it is now; None: of the rows trained on."""
        ids = self._ids if texts is None else self.encoder.tokenize(texts)
        return self.encoder.encode_ids(ids)

    @torch.no_grad()
    def embed(self, features_ND: Tensor) -> Tensor:
        """Embeddings [N, E] on the CPU, as they are compared."""
        self.head.eval()
        device = self.encoder.device
        parts = []
        for part_ND in torch.split(features_ND, 8192):
            x_ND = (part_ND.to(device) - self._mean_D) / self._deviation_D
            parts.append(self.head(x_ND).cpu())
        return torch.cat(parts)

    def save(self, folder: Path) -> None:
        """Everything that the next step depends on, into an empty folder.

        Of the encoder only what is trained: with LoRA the additions.
        """
        parts = {"head": self.head.state_dict(), "encoder": self._tuned}
        progress = {"num_steps": self.num_steps, "batch_tokens": self.encoder.batch_tokens}
        save_training(folder, parts, self._optimizer, progress)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, under the same recipe, texts and encoder."""
        parts, progress = load_training(folder, self._optimizer)
        self.head.load_state_dict(parts["head"])
        with torch.no_grad():
            for name, tensor in parts["encoder"].items():
                self._tuned[name].copy_(tensor)
        self.num_steps = progress["num_steps"]
        self.encoder.batch_tokens = progress["batch_tokens"]


def _make_trainable(encoder: TextEncoder, tuning: Tuning, seed: int) -> None:
    model: Any = encoder.model
    if tuning.kind == "lora":
        model = add_lora(model, tuning.lora, seed)
    else:
        for name, weight in model.named_parameters():
            weight.requires_grad_(not name.startswith("pooler."))
    if tuning.gradient_checkpointing:
        try:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            said = f"encoder.gradient_checkpointing: off, {error}"
            logger.warning("%s", said)
            encoder.fallbacks.append(said)
    encoder.model = model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's own generators from a seed, and as they were afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
