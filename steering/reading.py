"""Activations of texts: read in padded batches, pooled over each text's own tokens.

A torch module. Shape suffixes: N = texts of a batch, T = tokens of the longest, D = width.
Texts are padded on the right, where a causal model's earlier positions cannot see it, so a text's
activations do not depend on its neighbours beyond the last bits of floating point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.errors import BadSteeringInput

__all__ = ["Pooling", "TextBatch", "pool_tokens", "read_activations", "read_pooled", "text_batches"]

Pooling = Literal["last", "mean", "max", "first"]

DEFAULT_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TextBatch:
    """Some texts as token ids."""

    rows: tuple[int, ...]
    """Places of the texts in what was given; batches go from long texts to short ones."""
    tokens_NT: Tensor
    """Token ids, int64, padded on the right."""
    is_text_NT: Tensor
    """True for tokens of the text; False for padding and for special tokens such as BOS."""
    spans: tuple[tuple[tuple[int, int], ...], ...]
    """For each text the characters (start, end) that each token stands for; (0, 0) for none."""


def text_batches(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    max_tokens: int = 512,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> Iterator[TextBatch]:
    """Tokenize texts and put those of like length together.

    Each text starts with BOS where the tokenizer has one, and is cut after `max_tokens`.

    Args:
        batch_tokens: most tokens of a batch, padding included; a longer text is alone.

    Raises:
        BadSteeringInput: a text without any token.
    """
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), row))
    # A character is at most a few tokens: so many texts surely fill a batch.
    for first in range(0, len(order), 1024):
        window = order[first : first + 1024]
        encoded = [_encode(lm, texts[row], row, max_tokens) for row in window]
        by_length = sorted(range(len(window)), key=lambda place: -len(encoded[place][0]))
        start = 0
        while start < len(by_length):
            longest = len(encoded[by_length[start]][0])
            some = by_length[start : start + max(1, batch_tokens // longest)]
            start += len(some)
            yield _padded(lm, [window[place] for place in some], [encoded[p] for p in some])


def read_activations(
    lm: LanguageModel,
    texts: Sequence[str],
    hooks: Sequence[str],
    *,
    max_tokens: int = 512,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> Iterator[tuple[TextBatch, dict[str, Tensor]]]:
    """Activations [N, T, D] of each hook, a batch at a time, in the model's precision.

    The pass stops after the deepest hook. Raises UnknownHook, BadSteeringInput.
    """
    for batch in text_batches(lm, texts, max_tokens=max_tokens, batch_tokens=batch_tokens):
        yield batch, lm.activations(batch.tokens_NT, hooks)


def read_pooled(
    lm: LanguageModel,
    texts: Sequence[str],
    hooks: Sequence[str],
    pooling: Pooling,
    *,
    max_tokens: int = 512,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> dict[str, Tensor]:
    """One vector a text and hook, [len(texts), D], float32 on the CPU, in the order of the texts.

    Memory: one batch of activations and the result. Raises UnknownHook, BadSteeringInput.
    """
    found: dict[str, Tensor] = {}
    for batch, acts in read_activations(
        lm, texts, hooks, max_tokens=max_tokens, batch_tokens=batch_tokens
    ):
        for hook, acts_NTD in acts.items():
            pooled_ND = pool_tokens(acts_NTD.float(), batch.is_text_NT, pooling).cpu()
            if hook not in found:
                found[hook] = torch.empty((len(texts), pooled_ND.shape[1]))
            found[hook][torch.tensor(batch.rows)] = pooled_ND
    return found


def pool_tokens(acts_NTD: Tensor, is_text_NT: Tensor, pooling: Pooling) -> Tensor:
    """One vector [N, D] for each text, over the tokens where the mask is True.

    `last` and `first` are the last and first such token, `mean` and `max` are taken per dimension.
    """
    mask_NT = is_text_NT.to(acts_NTD.device)
    mask_NT1 = mask_NT.unsqueeze(-1)
    if pooling == "mean":
        return acts_NTD.masked_fill(~mask_NT1, 0.0).sum(dim=1) / mask_NT1.sum(dim=1).clamp(min=1)
    if pooling == "max":
        return acts_NTD.masked_fill(~mask_NT1, -torch.inf).amax(dim=1)
    place_T = torch.arange(mask_NT.shape[1], device=mask_NT.device)
    if pooling == "first":
        place_N = torch.where(mask_NT, place_T, mask_NT.shape[1]).amin(dim=1)
    else:
        place_N = torch.where(mask_NT, place_T, -1).amax(dim=1)
    return acts_NTD[torch.arange(len(acts_NTD), device=mask_NT.device), place_N]


_Encoded = tuple[list[int], list[bool], list[tuple[int, int]]]


def _encode(lm: LanguageModel, text: str, row: int, max_tokens: int) -> _Encoded:
    """Ids, which of them are text, and their characters."""
    tokenizer = lm.tokenizer
    if getattr(tokenizer, "is_fast", False):
        said = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = list(said["input_ids"]), [(int(a), int(b)) for a, b in said["offset_mapping"]]
    else:
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        spans = [(0, 0)] * len(ids)
    if not ids:
        raise BadSteeringInput(f"text {row} is empty, and nothing can be read of it; leave it out")
    bos = [] if lm.bos_token_id is None else [lm.bos_token_id]
    kept = max_tokens - len(bos)
    is_text = [False] * len(bos) + [True] * len(ids[:kept])
    return bos + ids[:kept], is_text, [(0, 0)] * len(bos) + spans[:kept]


def _padded(lm: LanguageModel, rows: Sequence[int], encoded: Sequence[_Encoded]) -> TextBatch:
    longest = max(len(ids) for ids, _, _ in encoded)
    filler = lm.tokenizer.pad_token_id
    filler = lm.eos_token_id if filler is None else filler
    tokens_NT = torch.full((len(rows), longest), int(filler or 0), dtype=torch.long)
    is_text_NT = torch.zeros((len(rows), longest), dtype=torch.bool)
    for place, (ids, is_text, _) in enumerate(encoded):
        tokens_NT[place, : len(ids)] = torch.tensor(ids)
        is_text_NT[place, : len(ids)] = torch.tensor(is_text)
    return TextBatch(tuple(rows), tokens_NT, is_text_NT, tuple(tuple(s) for _, _, s in encoded))
