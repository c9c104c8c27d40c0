"""Texts to one vector each at several hooks in one pass, and the residual norms seen on the way.

A torch module. Shape suffixes: N = texts of a batch, T = tokens, D = width,
L = hooks, C = classes of texts.

Held in memory are a batch of activations and what the caller keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.directions.contrast_spec import ReadPosition
from steering.directions.positions import read_at
from steering.errors import BadSteeringInput
from steering.reading import read_activations
from steering.vectors import model_identity

__all__ = [
    "NormMeter",
    "PooledBatch",
    "class_sums",
    "how_read",
    "norm_hook",
    "read_hooks_of",
    "read_pooled_batches",
]

MAX_NORMS = 1 << 18
"""Norms kept of a hook; beyond it every second one is let go, again and again."""

_SUBLAYER = re.compile(r"^(?:blocks\.(\d+)\.hook_(?:mlp|attn)_out|(?:mlp|attn)_out\.(\d+))$")


@dataclass(frozen=True)
class PooledBatch:
    """Some texts."""

    row_N: Tensor
    """Their places in what was given, int64."""
    vector_ND_by_hook: Mapping[str, Tensor]
    """float32 on the CPU."""


class NormMeter:
    """Median length of the residual stream at each of some hooks, over tokens."""

    def __init__(self, hooks: Sequence[str]) -> None:
        self.hooks = tuple(hooks)
        self._kept: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
        self._count = dict.fromkeys(hooks, 0)
        self._stride = dict.fromkeys(hooks, 1)
        self.num_tokens = 0

    def add(self, acts_by_hook: Mapping[str, Tensor], is_text_NT: Tensor) -> None:
        """Count the text tokens of a batch."""
        self.num_tokens += int(is_text_NT.sum())
        for hook in self._kept:
            acts_NTD = acts_by_hook[hook]
            norms = acts_NTD[is_text_NT.to(acts_NTD.device)].float().norm(dim=-1).cpu()
            self._keep(hook, norms)

    def _keep(self, hook: str, norms: Tensor) -> None:
        stride, seen = self._stride[hook], self._count[hook]
        self._kept[hook].append(norms[(-seen) % stride :: stride])
        self._count[hook] = seen + len(norms)
        if sum(map(len, self._kept[hook])) > MAX_NORMS:
            self._kept[hook] = [torch.cat(self._kept[hook])[::2].clone()]
            self._stride[hook] = 2 * stride

    @property
    def median_L(self) -> Tensor:
        """In the order of the hooks; zero where no token was seen."""
        kept = [torch.cat(self._kept[hook]) if self._kept[hook] else None for hook in self.hooks]
        return torch.stack([torch.zeros(()) if k is None else k.median() for k in kept])


def norm_hook(hook: str) -> str:
    """Where the residual stream is measured for a write hook.

    What is added to a sublayer's output ends in the residual stream behind its block, so a strength
    there is a fraction of that norm and not of the sublayer's own.
    """
    match = _SUBLAYER.match(hook)
    return f"resid_post.{match[1] or match[2]}" if match else hook


def read_hooks_of(hooks: Sequence[str], read_hooks: Sequence[str] | None) -> tuple[str, ...]:
    """Where each write hook's vector is read: at the hook itself unless others are given.

    Raises:
        BadSteeringInput: no hooks, one string, or not a read hook for each.
    """
    read = tuple(hooks if read_hooks is None else read_hooks)
    if isinstance(hooks, str) or isinstance(read_hooks, str) or not hooks:
        raise BadSteeringInput(
            f"hooks={hooks!r} must be a list of at least one, as ['resid_post.8']"
        )
    if len(read) != len(hooks):
        raise BadSteeringInput(
            f"{len(read)} read hooks for {len(hooks)} write hooks; give one for each, or none"
        )
    return read


def read_pooled_batches(
    lm: LanguageModel,
    texts: Sequence[str],
    hooks: Sequence[str],
    position: ReadPosition,
    norms: NormMeter | None = None,
    *,
    max_tokens: int = 512,
) -> Iterator[PooledBatch]:
    """One vector a text and hook, a batch at a time; long texts come first.

    Args:
        norms: told of every batch; its hooks are read in the same pass.

    Raises:
        UnknownHook: a hook that the model does not have.
        BadSteeringInput: an empty text, or one too short for the position.
    """
    wanted = list(dict.fromkeys([*hooks, *(norms.hooks if norms else ())]))
    for batch, acts in read_activations(lm, texts, wanted, max_tokens=max_tokens):
        if norms is not None:
            norms.add(acts, batch.is_text_NT)
        yield PooledBatch(
            torch.tensor(batch.rows),
            {hook: read_at(acts[hook], batch.is_text_NT, position).cpu() for hook in hooks},
        )


def class_sums(
    batches: Iterable[PooledBatch],
    hooks: Sequence[str],
    class_of_text: Sequence[int],
    num_classes: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Sums of the texts' vectors by class, [C, D] float64 a hook, and how many there were, [C]."""
    of_text = torch.tensor(class_of_text, dtype=torch.long)
    sums: dict[str, Tensor] = {}
    count_C = torch.bincount(of_text, minlength=num_classes).double()
    for batch in batches:
        class_N = of_text[batch.row_N]
        for hook in hooks:
            vector_ND = batch.vector_ND_by_hook[hook].double()
            if hook not in sums:
                sums[hook] = torch.zeros((num_classes, vector_ND.shape[1]), dtype=torch.float64)
            sums[hook].index_add_(0, class_N, vector_ND)
    return sums, count_C


def how_read(
    lm: LanguageModel, read_hooks: Sequence[str], position: ReadPosition | None, norms: NormMeter
) -> dict[str, Any]:
    """The fields of `About` that tell where activations were read."""
    return {
        "model": model_identity(lm),
        "read_hooks": tuple(read_hooks),
        "read_position": position,
        "norm_hooks": norms.hooks,
    }
