"""Directions of length one."""

from __future__ import annotations

from torch import Tensor

from steering.errors import BadSteeringInput

__all__ = ["check_direction", "unit"]


def unit(vector_D: Tensor) -> Tensor:
    """The vectors [..., D] scaled to length one."""
    return vector_D / vector_D.norm(dim=-1, keepdim=True)


def check_direction(owner: str, vector_D: Tensor) -> None:
    """Raises BadSteeringInput for a vector of zeros: it has no direction."""
    if bool((vector_D == 0).all(dim=-1).any()):
        raise BadSteeringInput(f"{owner}: a vector of zeros has no direction; leave the edit out")
