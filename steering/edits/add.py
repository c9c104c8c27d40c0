"""Add a vector to activations; optionally each activation keeps its norm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from steering.edits.base import Edit
from steering.edits.row_wise import VECTOR, per_row

__all__ = ["Add"]


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """h + strength v; with `preserve_norm` that, scaled back to |h| (repeng's `normalize`)."""

    name: ClassVar[str] = "add"

    vector: Tensor = field(metadata=VECTOR)
    """The displacement in raw units, [D], or [N, D] with one a row."""
    preserve_norm: bool = False

    def change(self, h_MD: Tensor, row_M: Tensor, strength: Tensor) -> Tensor:
        added_MD = h_MD + strength * per_row(self.vector, row_M, h_MD, shared_ndim=1)
        if not self.preserve_norm:
            return added_MD
        old_M1, new_M1 = h_MD.norm(dim=-1, keepdim=True), added_MD.norm(dim=-1, keepdim=True)
        # The quotient of equal norms is exactly 1, so that strength 0 changes no bit.
        return added_MD * torch.where(new_M1 > 0, old_M1 / new_M1, 1.0)
