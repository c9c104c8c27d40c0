"""Who may hold how many slots of a machine: pure functions of what each sweep claims.

A device is one unit of capacity, and a trial takes 1 / (trials on a device) of it. Higher priority
comes first, up to what it can use. Sweeps of equal priority share what is left equally; what an
equal share leaves over goes to those that were served least. So a small sweep gets a slot as soon
as a trial of another one's backlog ends; where there are more sweeps than slots, they take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Claim:
    """What one sweep could use of a machine now."""

    sweep: str
    priority: int
    slots_per_device: float
    """Its trials that live on one device at once."""
    demand: int
    """Its trials that are running here or could be begun."""
    served_device_s: float
    """Device time its trials had so far, in seconds."""


def shares(claims: Sequence[Claim], num_devices: float) -> dict[str, int]:
    """Slots of each sweep; together they fit on the devices.

    Args:
        claims: one a sweep, in any order.
        num_devices: capacity.
    """
    slots = dict.fromkeys((claim.sweep for claim in claims), 0)
    left = float(num_devices)
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        peers = [c for c in claims if c.priority == priority and c.demand > 0]
        given = _equal_shares(peers, left)
        slots.update(given)
        left -= sum(given[c.sweep] / c.slots_per_device for c in peers)
    return slots


def _equal_shares(peers: Sequence[Claim], capacity: float) -> dict[str, int]:
    """A slot at a time to who has the smallest part of the devices; of equals, the least served."""
    slots = dict.fromkeys((claim.sweep for claim in peers), 0)
    left = capacity
    while True:
        takers = [
            claim
            for claim in peers
            if slots[claim.sweep] < claim.demand and 1 / claim.slots_per_device <= left + _ROUNDING
        ]
        if not takers:
            return slots
        taker = min(takers, key=lambda c: (_part(c, slots), c.served_device_s, c.sweep))
        slots[taker.sweep] += 1
        left -= 1 / taker.slots_per_device


def _part(claim: Claim, slots: Mapping[str, int]) -> float:
    """Rounded, so that equal parts of unlike trials are equal."""
    return round(slots[claim.sweep] / claim.slots_per_device, 6)
