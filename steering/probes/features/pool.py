"""From a batch of activations to rows of the tables. A torch module.

Shape suffixes: N = texts of a batch, T = tokens of the longest, D = width, F = latents, S = tokens
of the texts one after the other, C = tokens encoded at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from sae.trained_sae import TrainedSae
from steering.probes.features.sparse import sparse_rows
from steering.probes.features.store import Arrays

__all__ = ["Places", "joined", "kept_places", "pooled_activations", "pooled_latents"]


@dataclass(frozen=True)
class Places:
    """The texts' own tokens of a padded batch, text after text."""

    flat_S: Tensor
    """Where each token is in the batch, seen as [N * T]."""
    lengths: tuple[int, ...]
    """Tokens of each text."""

    @classmethod
    def of(cls, is_text_NT: Tensor) -> Places:
        """From the mask of what is text."""
        flat_S = is_text_NT.reshape(-1).nonzero().squeeze(1)
        return cls(flat_S, tuple(is_text_NT.sum(dim=1).tolist()))

    def read_by(self, pooling: str, kept_tokens: int | None) -> list[list[int]]:
        """For each text the places among its tokens that this pooling reads, ascending."""
        if pooling == "last":
            return [[length - 1] for length in self.lengths]
        if pooling == "first":
            return [[0] for _ in self.lengths]
        limit = None if pooling in ("mean", "max") else kept_tokens
        return [kept_places(length, limit) for length in self.lengths]

    def flat(self, places: Sequence[Sequence[int]]) -> Tensor:
        """Where those tokens are in the batch."""
        starts = accumulate(self.lengths[:-1], initial=0)
        wanted = [
            start + place for start, some in zip(starts, places, strict=True) for place in some
        ]
        return self.flat_S[torch.tensor(wanted, dtype=torch.long)]


def kept_places(length: int, kept_tokens: int | None) -> list[int]:
    """Which of a text's tokens are kept: all, or so many, evenly from the first to the last."""
    if kept_tokens is None or length <= kept_tokens:
        return list(range(length))
    if kept_tokens == 1:
        return [length - 1]
    return [round(step * (length - 1) / (kept_tokens - 1)) for step in range(kept_tokens)]


def pooled_activations(
    acts_NTD: Tensor, places: Places, pooling: str, kept_tokens: int | None
) -> list[Arrays]:
    """For each text of the batch its rows, float32 [rows, D]."""
    read = places.read_by(pooling, kept_tokens)
    flat_SD = acts_NTD.reshape(-1, acts_NTD.shape[-1])
    kept_SD = flat_SD[places.flat(read).to(flat_SD.device)].float()
    parts: Sequence[Tensor] = torch.split(kept_SD, [len(some) for some in read])
    if pooling == "mean":
        parts = [part_TD.mean(dim=0, keepdim=True) for part_TD in parts]
    elif pooling == "max":
        parts = [part_TD.amax(dim=0, keepdim=True) for part_TD in parts]
    return [{"rows": part_TD.cpu().numpy()} for part_TD in parts]


def pooled_latents(
    acts_NTD: Tensor,
    sae: TrainedSae,
    places: Places,
    poolings: Sequence[str],
    kept_tokens: int | None,
    sae_tokens: int,
) -> dict[str, list[Arrays]]:
    """For each pooling and text the rows of latents, as `sparse_rows` has them.

    A token is encoded once, whatever reads it; `sae_tokens` rows of d_sae numbers are in memory at
    a time, and for mean and max one row a text.
    """
    read = {pooling: places.read_by(pooling, kept_tokens) for pooling in poolings}
    union = [sorted(set().union(*some)) for some in zip(*read.values(), strict=True)]
    flat_SD = acts_NTD.reshape(-1, acts_NTD.shape[-1])
    found: dict[str, list[list[Arrays]]] = {p: [[] for _ in union] for p in poolings}
    sums = {p: _Running(p) for p in poolings if p in ("mean", "max")}
    wanted = {p: [set(some) for some in read[p]] for p in poolings if p not in sums}
    for text, own_places, latents_CF in _encoded(flat_SD, sae, places, union, sae_tokens):
        for pooling, running in sums.items():
            done = running.add(latents_CF, is_last=own_places[-1] == union[text][-1])
            if done is not None:
                found[pooling][text].append(sparse_rows(done))
        for pooling, kept in wanted.items():
            own = [row for row, place in enumerate(own_places) if place in kept[text]]
            if own:
                some_CF = latents_CF if len(own) == len(own_places) else latents_CF[own]
                found[pooling][text].append(sparse_rows(some_CF))
    return {pooling: [joined(parts) for parts in texts] for pooling, texts in found.items()}


class _Running:
    """Mean or max over the tokens of one text, which come in pieces."""

    def __init__(self, pooling: str) -> None:
        self._is_max = pooling == "max"
        self._held_1F: Tensor | None = None
        self._num_tokens = 0

    def add(self, latents_CF: Tensor, *, is_last: bool) -> Tensor | None:
        """Take a piece; the pooled row [1, F] after the text's last one."""
        piece_1F = (
            latents_CF.amax(dim=0, keepdim=True)
            if self._is_max
            else latents_CF.sum(dim=0, keepdim=True)
        )
        if self._held_1F is not None:
            held_1F = self._held_1F
            piece_1F = torch.maximum(held_1F, piece_1F) if self._is_max else held_1F + piece_1F
        self._num_tokens += len(latents_CF)
        if not is_last:
            self._held_1F = piece_1F
            return None
        row_1F = piece_1F if self._is_max else piece_1F / self._num_tokens
        self._held_1F, self._num_tokens = None, 0
        return row_1F


def _encoded(
    flat_SD: Tensor,
    sae: TrainedSae,
    places: Places,
    union: Sequence[Sequence[int]],
    sae_tokens: int,
) -> Iterator[tuple[int, Sequence[int], Tensor]]:
    """(text, its places, latents [places, F]): a text in one piece or in several, in order."""
    where_S = places.flat(union)
    text_S = [text for text, some in enumerate(union) for _ in some]
    place_S = [place for some in union for place in some]
    for start in range(0, len(text_S), sae_tokens):
        end = min(start + sae_tokens, len(text_S))
        latents_CF = sae.encode(flat_SD[where_S[start:end].to(flat_SD.device)])
        first = start
        while first < end:
            text, last = text_S[first], first
            while last < end and text_S[last] == text:
                last += 1
            yield text, place_S[first:last], latents_CF[first - start : last - start]
            first = last


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
    """Parts of tables, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
