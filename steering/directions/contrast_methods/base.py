"""What a method has to say that makes a direction of texts on two sides. numpy only.

Shape suffixes: P = positive texts, N = negative texts, D = width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

__all__ = ["Array", "ContrastMethod"]

Array = np.ndarray[Any, Any]


class ContrastMethod(ABC):
    """A formula from the activations of both sides, at one hook, to a direction."""

    formula: ClassVar[str]
    """Its id, which is written into what is made with it."""
    maths: ClassVar[str]
    """The formula in a line, with its source."""
    sign_rule: ClassVar[str]
    """What makes the direction point to the positive side."""
    needs_rows: ClassVar[bool] = True
    """Whether it takes each text's activations; else the means of both sides are enough."""
    needs_pairs: ClassVar[bool] = False
    """Whether row i of one side belongs to row i of the other."""

    by_formula: ClassVar[dict[str, ContrastMethod]] = {}

    def __init_subclass__(cls) -> None:
        if cls.formula in ContrastMethod.by_formula:
            raise TypeError(f"two methods are called {cls.formula!r}")
        ContrastMethod.by_formula[cls.formula] = cls()

    @abstractmethod
    def direction(self, positive_PD: Array, negative_ND: Array) -> Array:
        """The direction [D]; of [1, D] means, too, unless `needs_rows`."""
