"""Logistic regression with an L1 penalty: few columns with a weight."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from steering.probes.logistic import Penalty
from steering.probes.methods.logistic_l2 import LogisticL2


class LogisticL1(LogisticL2):
    """L1-regularised logistic regression over standardised columns."""

    name: ClassVar[str] = "logistic_l1"
    penalty: ClassVar[Penalty] = "l1"

    c: tuple[float, ...] = Field(default=(1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)
    """Inverse strengths of the penalty to choose from."""
