"""Remove the component along a direction; optionally put a vector in its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from steering.edits.base import Edit
from steering.edits.row_wise import VECTOR, per_row
from steering.edits.unit_vectors import check_direction, unit

__all__ = ["ProjectOut"]


@dataclass(frozen=True, eq=False)
class ProjectOut(Edit):
    """h - strength ((h . w) w - addition), w the unit vector along `vector`.

    At strength 1 the ablation, or ablation-then-addition, of the steering-vectors package.
    """

    name: ClassVar[str] = "project_out"

    vector: Tensor = field(metadata=VECTOR)
    """The direction, of any length but zero: [D], or [N, D] with one a row."""
    addition: Tensor | None = field(default=None, metadata=VECTOR)
    """Raw units, [D] or [N, D]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_direction(type(self).__name__, self.vector)

    def change(self, h_MD: Tensor, row_M: Tensor, strength: Tensor) -> Tensor:
        w_MD = unit(per_row(self.vector, row_M, h_MD, shared_ndim=1))
        less_MD = (h_MD * w_MD).sum(dim=-1, keepdim=True) * w_MD
        if self.addition is not None:
            less_MD = less_MD - per_row(self.addition, row_M, h_MD, shared_ndim=1)
        return h_MD - strength * less_MD
