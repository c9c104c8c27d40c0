"""How long nothing was heard of a sweep's drivers: one that was killed leaves no event behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from orchestrator.store import Store
from orchestrator.store.backend import StoreError

ASK_EVERY_S = 5.0
"""A live view asks again no sooner."""


class Silence:
    """Reads the heartbeats of a sweep's drivers.

    They carry the clock of the driver's machine: what is said is off by as much as clocks are.
    Decisions do not rest on it (see `orchestrator.trials.leases`).
    """

    def __init__(self, store: Store, sweep: str, clock: Callable[[], float] = time.time) -> None:
        self._store, self._sweep, self._clock = store, sweep, clock
        self._asked: dict[str, tuple[float, float | None]] = {}

    def since_s(self, drivers: Iterable[str]) -> float | None:
        """Seconds since the last beat of any; None without drivers, or if one cannot be read."""
        beats = [self._beat_at(driver) for driver in drivers]
        known = [beat for beat in beats if beat is not None]
        if not known or len(known) < len(beats):
            return None
        return max(self._clock() - max(known), 0.0)

    def _beat_at(self, driver: str) -> float | None:
        now = self._clock()
        asked_at, beat_at = self._asked.get(driver, (-ASK_EVERY_S, None))
        if now - asked_at >= ASK_EVERY_S:
            beat_at = self._read(driver)
            self._asked[driver] = (now, beat_at)
        return beat_at

    def _read(self, driver: str) -> float | None:
        try:
            at = self._store.read_json(self._store.layout.heartbeat(self._sweep, driver))["at"]
        except (StoreError, KeyError, TypeError):
            return None
        return float(at) if isinstance(at, int | float) else None
