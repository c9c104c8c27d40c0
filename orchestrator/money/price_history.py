"""A price that changes now and then: constant between its changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PriceHistory:
    """Dollars an hour from each change on. Times are seconds since 1970."""

    changes: tuple[tuple[float, float], ...]
    """(from when, dollars an hour), in order of time; at least one."""

    @classmethod
    def of(cls, changes: Iterable[tuple[float, float]]) -> PriceHistory:
        """From changes in any order; of two at the same time the last one given holds."""
        return cls(tuple(sorted(dict(changes).items())))

    def merged(self, other: PriceHistory) -> PriceHistory:
        """Both histories in one."""
        return PriceHistory.of([*self.changes, *other.changes])

    def usd_per_hour_at(self, at: float) -> float:
        """The price at a time; before the first change, that of the first."""
        after = bisect_right(self.changes, at, key=lambda change: change[0])
        return self.changes[max(after - 1, 0)][1]

    def usd(self, begin: float, end: float) -> float:
        """What the span from `begin` to `end` cost: the integral of the price."""
        inside = [at for at, _ in self.changes if begin < at < end]
        edges = [begin, *inside, max(begin, end)]
        return sum(
            self.usd_per_hour_at(left) * (right - left) / 3600
            for left, right in zip(edges, edges[1:], strict=False)
        )

    def mean_usd_per_hour(self, begin: float, end: float) -> float:
        """The price over a span, weighted by time; at its begin where the span is empty."""
        if end <= begin:
            return self.usd_per_hour_at(begin)
        return self.usd(begin, end) * 3600 / (end - begin)
