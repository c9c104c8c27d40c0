"""Activations as they are kept in memory and on disk. A torch module.

Shape suffixes: S = tokens in a shuffle block, R = some of them, D = width at the hook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.stream_spec import CacheSpec

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
"""Largest number of E4M3 (Micikevicius et al. 2022, arXiv 2209.05433, table 1)."""


def storage_dtype(cache: CacheSpec | None, model_dtype: torch.dtype) -> torch.dtype:
    """Precision in which blocks are kept: the model's own, unless a cache asks for another."""
    asked = None if cache is None else cache.dtype
    if asked is None:
        return model_dtype
    dtype: torch.dtype = FLOAT8 if asked == "float8" else getattr(torch, asked)
    return dtype


def storage_record(dtype: torch.dtype) -> dict[str, Any]:
    """Say as JSON how activations are rounded."""
    name = str(dtype).removeprefix("torch.")
    return {"dtype": name, "scale": "amax of each row / 448" if dtype == FLOAT8 else None}


@dataclass(frozen=True)
class Stored:
    """Activations at one hook, rounded once: whoever reads them gets the same numbers."""

    values_SD: Tensor
    scale_S: Tensor | None
    """What a row is multiplied by, fp32; None where the type has the range of the activations."""

    @classmethod
    def empty(cls, num_rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Stored:
        """Room for so many rows."""
        values_SD = torch.empty((num_rows, width), dtype=dtype, device=device)
        scale_S = torch.empty(num_rows, device=device) if dtype == FLOAT8 else None
        return cls(values_SD, scale_S)

    def put(self, slot_R: Tensor, acts_RD: Tensor) -> None:
        """Round activations into the given rows."""
        if self.scale_S is None:
            self.values_SD.index_copy_(0, slot_R, acts_RD.to(self.values_SD.dtype))
            return
        wide_RD = acts_RD.float()
        scale_R = wide_RD.abs().amax(dim=1) / FLOAT8_MAX
        scale_R = torch.where(scale_R > 0, scale_R, 1.0)
        # A row's largest number may come out of the division a little above the type's.
        scaled_RD = (wide_RD / scale_R[:, None]).clamp(-FLOAT8_MAX, FLOAT8_MAX)
        bytes_SD = self.values_SD.view(torch.uint8)  # index_copy_ does not know the type
        bytes_SD.index_copy_(0, slot_R, scaled_RD.to(FLOAT8).view(torch.uint8))
        self.scale_S.index_copy_(0, slot_R, scale_R)

    def rows(self, rows: slice) -> Tensor:
        """Some activations, [R, D] fp32, a copy."""
        acts_RD = self.values_SD[rows].to(torch.float32, copy=True)
        return acts_RD if self.scale_S is None else acts_RD.mul_(self.scale_S[rows, None])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        return (self.values_SD,) if self.scale_S is None else (self.values_SD, self.scale_S)

    @property
    def num_bytes(self) -> int:
        """Bytes that it holds."""
        return sum(tensor.nbytes for tensor in self.tensors)
