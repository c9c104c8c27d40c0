"""Tiny models of each family whose blocks do something, and batches of tokens with padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from tests.sae.tiny_model import Family, build_tiny_model

HOOK = "resid_post.1"
BOS = 0


@cache
def tiny_lm(family: Family = "llama", seed: int = 0) -> LanguageModel:
    """Shared by tests, which leave it as it is. Larger weights than at the start of a training:
    else attention hardly matters, and what a token sees of others could be wrong unnoticed."""
    with TemporaryDirectory() as folder:
        path = build_tiny_model(Path(folder), family, seed=seed)
        lm = LanguageModel.load(ModelSpec(name=str(path)), "cpu")
        with torch.no_grad():
            for weight in lm.model.parameters():
                if weight.ndim == 2:
                    weight.mul_(6.0)
    return lm


def num_hooks(lm: LanguageModel) -> int:
    """Of all sorts, on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


@dataclass(frozen=True)
class Padded:
    """Rows of different lengths as one batch."""

    rows: list[Tensor]
    ids_NT: Tensor
    mask_NT: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        """For `lm.forward`."""
        position_NT = (self.mask_NT.cumsum(dim=1) - 1).clamp(min=0)
        return {
            "input_ids": self.ids_NT,
            "attention_mask": self.mask_NT,
            "position_ids": position_NT,
        }

    def own(self, batch_NTV: Tensor) -> list[Tensor]:
        """What belongs to the tokens of each row, [tokens, ...]."""
        return [
            row_TV[mask_T.bool()] for row_TV, mask_T in zip(batch_NTV, self.mask_NT, strict=True)
        ]


def some_rows(lengths: tuple[int, ...] = (9, 5, 7), *, bos: bool = True) -> list[Tensor]:
    """Token ids [tokens] of rows with these lengths."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(2, 300, (length,), generator=generator) for length in lengths]
    for row in rows:
        row[0] = BOS if bos else row[0]
    return rows


def padded(side: Literal["left", "right"], rows: list[Tensor] | None = None) -> Padded:
    """The rows in one batch; padding is a token that would be noticed."""
    rows = some_rows() if rows is None else rows
    longest = max(len(row) for row in rows)
    ids_NT = torch.full((len(rows), longest), 77)
    mask_NT = torch.zeros_like(ids_NT)
    for place, row in enumerate(rows):
        where = slice(longest - len(row), None) if side == "left" else slice(len(row))
        ids_NT[place, where], mask_NT[place, where] = row, 1
    return Padded(rows, ids_NT, mask_NT)
