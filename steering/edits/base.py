"""What every edit is: a change of some tokens' activations at one hook.

A torch module. Shape suffixes: N = rows of a batch, M = the tokens that are edited, over all rows,
D = width at the hook.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from steering.edits.positions import Positions
from steering.edits.row_wise import NUMBER, Number, RowWise

__all__ = ["Edit"]


@dataclass(frozen=True, eq=False)
class Edit(RowWise, ABC):
    """Base of edits; a module of this folder that defines one is found by being there."""

    by_name: ClassVar[dict[str, type[Edit]]] = {}
    name: ClassVar[str]
    """How specs and artefacts call it."""

    hook: str
    """Where it writes: a module path or an alias, see `sae.hooks`."""
    strength: Number = field(default=1.0, kw_only=True, metadata=NUMBER)
    """0 changes nothing, to the bit; 1 is the edit as it is described."""
    positions: Positions = field(default="all", kw_only=True)
    """Padding is never edited."""
    skip_bos: bool = field(default=True, kw_only=True)
    """Leave a beginning-of-sequence token at position 0 alone: models park much attention and an
    outsized norm there, and are thrown off by little."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        known = cls.by_name.setdefault(cls.name, cls)
        if known.__qualname__ != cls.__qualname__ or known.__module__ != cls.__module__:
            raise ValueError(f"two edits are called {cls.name!r}: {known} and {cls}")

    @abstractmethod
    def change(self, h_MD: Tensor, row_M: Tensor, strength: Tensor) -> Tensor:
        """The new activations [M, D] of tokens that stand in rows `row_M`.

        Args:
            h_MD: float32, or float64 if the model's is; not to be changed in place.
            strength: [] or [M, 1].
        """

    def with_strength(self, strength: Number) -> Self:
        """The same at another strength."""
        return replace(self, strength=strength)
