"""Replace activations by a mean over data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from steering.edits.base import Edit
from steering.edits.row_wise import VECTOR, per_row

__all__ = ["MeanAblate"]


@dataclass(frozen=True, eq=False)
class MeanAblate(Edit):
    """h + strength (mean - h): at strength 1 the mean instead of the activation."""

    name: ClassVar[str] = "mean_ablate"

    mean: Tensor = field(metadata=VECTOR)
    """[D], or [N, D] with one a row."""

    def change(self, h_MD: Tensor, row_M: Tensor, strength: Tensor) -> Tensor:
        return h_MD + strength * (per_row(self.mean, row_M, h_MD, shared_ndim=1) - h_MD)
