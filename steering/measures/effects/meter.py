"""What measures an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

__all__ = ["Array", "EffectMeter"]


class EffectMeter(Protocol):
    """Says how much of what was wanted texts have."""

    def score(self, texts: Sequence[str]) -> Array:
        """Within 0 and 1, [N], float64; 0 for an empty text."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """What it is and how good, as JSON."""
        ...
