"""Which results are worth having: those that no other beats in sparsity and quality at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Direction = Literal["min", "max"]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Point:
    """A result by what it costs (smaller is better) and how good it is."""

    cost: float
    value: float

    def dominates(self, other: Point, direction: Direction) -> bool:
        """Whether it is at least as good in both, and better in one."""
        gain = other.value - self.value if direction == "min" else self.value - other.value
        return self.cost <= other.cost and gain >= 0 and (self.cost < other.cost or gain > 0)


def pareto(points: Mapping[Key, Point], direction: Direction = "min") -> list[Key]:
    """Keys of the points that no other dominates, by rising cost.

    Of two equal points both stay: neither is better.
    """
    order = sorted(points, key=lambda key: (points[key].cost, _badness(points[key], direction)))
    kept: list[Key] = []
    for key in order:
        if not any(points[other].dominates(points[key], direction) for other in kept[-1:]):
            kept.append(key)
    return kept


def _badness(point: Point, direction: Direction) -> float:
    return point.value if direction == "min" else -point.value


def widths_of(configs: Sequence[Mapping[str, object]]) -> list[object]:
    """Dictionary widths that occur, smallest first; those that are no numbers last."""
    found = {config.get("d_sae") for config in configs}
    return sorted(found, key=lambda w: (not isinstance(w, int | float), str(w).zfill(12)))
