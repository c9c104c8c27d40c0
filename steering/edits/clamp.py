"""Set the component along a direction to a value, or keep it above or below one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from torch import Tensor

from steering.edits.base import Edit
from steering.edits.row_wise import NUMBER, VECTOR, Number, per_row
from steering.edits.unit_vectors import check_direction, unit
from steering.errors import BadSteeringInput

__all__ = ["Clamp", "ClampKind"]

ClampKind = Literal["set", "at_least", "at_most"]


@dataclass(frozen=True, eq=False)
class Clamp(Edit):
    """h + strength (target - p) w, where w is the unit vector along `vector`.

    `set`: h - relu(h . w) w + value w, AxBench's SubspaceIntervention: p is the positive part of
    the component, and the target is the value. `at_least` and `at_most`: p is the component, and it
    is changed only where it is below or above the value.
    """

    name: ClassVar[str] = "clamp"

    vector: Tensor = field(metadata=VECTOR)
    """The direction, of any length but zero: [D], or [N, D] with one a row."""
    value: Number = field(metadata=NUMBER)
    """In raw units of the activations, along the unit vector."""
    kind: ClampKind = "set"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_direction(type(self).__name__, self.vector)
        if self.kind not in get_args(ClampKind):
            known = ", ".join(get_args(ClampKind))
            raise BadSteeringInput(f"Clamp: kind={self.kind!r} is unknown; known: {known}")

    def change(self, h_MD: Tensor, row_M: Tensor, strength: Tensor) -> Tensor:
        w_MD = unit(per_row(self.vector, row_M, h_MD, shared_ndim=1))
        value_M1 = per_row(self.value, row_M, h_MD, shared_ndim=0)
        component_M1 = (h_MD * w_MD).sum(dim=-1, keepdim=True)
        if self.kind == "set":
            missing_M1 = value_M1 - component_M1.relu()
        elif self.kind == "at_least":
            missing_M1 = (value_M1 - component_M1).relu()
        else:
            missing_M1 = -(component_M1 - value_M1).relu()
        return h_MD + strength * missing_M1 * w_MD
