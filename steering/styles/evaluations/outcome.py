"""What an evaluation says: figures with intervals, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from steering.intervals import Interval

SKIPPED = "skipped: "


@dataclass(frozen=True)
class Figure:
    """One number and how sure it is."""

    name: str
    interval: Interval
    num: int
    """Rows, pairs, tasks or resamples that it is over."""
    chance: float | None = None
    """What guessing gives; None where that means nothing (a difference)."""

    def to_json(self) -> dict[str, Any]:
        """nan is None."""
        one = self.interval
        return {
            "name": self.name,
            "estimate": _known(one.estimate),
            "low": _known(one.low),
            "high": _known(one.high),
            "confidence": one.confidence,
            "n": self.num,
            "chance": self.chance,
        }


@dataclass(frozen=True)
class Outcome:
    """One evaluation."""

    name: str
    """Such as `stel`."""
    figures: Sequence[Figure] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    """What was left out, and why: {"stel formality": "not licensed: ..."}."""
    notes: Sequence[str] = ()
    """What a reader of the figures has to know."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The rest, as JSON."""

    @classmethod
    def skip(cls, name: str, why: str) -> Self:
        """Nothing could be measured."""
        return cls(name, skipped={name: why})

    def figure(self, name: str) -> Figure:
        """By name. Raises KeyError."""
        return next(one for one in self.figures if one.name == name)

    def to_json(self) -> dict[str, Any]:
        """Without numpy in it."""
        return {
            "name": self.name,
            "figures": [one.to_json() for one in self.figures],
            "skipped": {name: SKIPPED + why for name, why in self.skipped.items()},
            "notes": list(self.notes),
            "details": dict(self.details),
        }


def _known(value: float) -> float | None:
    return None if value != value else value
