"""How long drivers were alive, and what the machines that they used cost in that time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orchestrator.log.events import DriverStarted
from orchestrator.log.state import DriverState

LAST_WORD_HOLDS_S = 600.0
"""A driver that nobody saw ending lived on for so long after its last word, at most: nobody may
have looked for days. While it works, each word that follows closes the gap."""


@dataclass(frozen=True)
class MachineUse:
    """What the drivers of a sweep, or of several, had at their disposal."""

    wall_seconds: float
    """Time in which at least one driver was alive."""
    device_seconds: float
    """That time, times the devices in use."""
    usd: float
    """That time, times the price of all machines in use; those without a price count as 0."""


def lifetime(driver: DriverState, now: float, alive: bool = False) -> tuple[float, float]:
    """(begin, end) of a driver's life, seconds since 1970.

    Args:
        alive: whether it is known to live now, whatever its last word was.
    """
    begin, ended = driver.started.at, driver.ended
    if ended is not None and ended.writer == driver.id:
        return begin, max(begin, ended.at)
    if ended is None and alive:
        return begin, max(begin, now)
    last = max(begin, driver.last_at) + LAST_WORD_HOLDS_S
    return begin, max(begin, min(now if ended is None else ended.at, last))


def machine_use(
    drivers: Iterable[DriverState], now: float, alive: Collection[str] = ()
) -> MachineUse:
    """Add drivers up. Those of one host at the same time share its cluster: it counts once.

    Args:
        now: seconds since 1970.
        alive: drivers that are known to live now.
    """
    lives = [(lifetime(d, now, d.id in alive), d.started) for d in drivers]
    edges = sorted({edge for life, _ in lives for edge in life})
    wall, device_seconds, usd = 0.0, 0.0, 0.0
    for left, right in zip(edges, edges[1:], strict=False):
        live = [started for (begin, end), started in lives if begin <= left and right <= end]
        if not live:
            continue
        wall += right - left
        for host in {started.host for started in live}:
            here = [started for started in live if started.host == host]
            device_seconds += max(_num_devices(one) for one in here) * (right - left)
            usd += max(one.usd_per_hour for one in here) * (right - left) / 3600
    return MachineUse(wall, device_seconds, usd)


def _num_devices(started: DriverStarted) -> float:
    return started.num_gpus if started.device == "cuda" else started.num_nodes
