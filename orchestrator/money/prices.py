"""What an hour of a device typically costs: a guide where the sweep names no price of its own."""

from __future__ import annotations

PRICES_AS_OF = "2025-06"

PRICE_BASIS = f"typical on-demand, {PRICES_AS_OF}; give price.usd_per_hour for yours"

# One GPU's share of the on-demand list price of the AWS instance type that carries it, us-east-1:
# g4dn, g6, g5, p4d, g6e, p4de, p5, p5en. Marketplace rate for the RTX 4090. Spot is often half.
TYPICAL_USD_PER_HOUR: dict[str, float] = {
    "T4-16": 0.53,
    "L4-24": 0.80,
    "A10G-24": 1.01,
    "RTX4090-24": 0.40,
    "A100-40": 2.75,
    "L40S-48": 1.86,
    "A100-80": 3.43,
    "H100-80": 6.88,
    "H200-141": 7.91,
}


def usd_per_hour(device: str, own_price: float) -> tuple[float | None, str]:
    """(price of one device-hour, where it comes from); None where nobody knows.

    Args:
        device: a name of `orchestrator.planning.devices.GPUS`, or of a machine that is not in it.
        own_price: the sweep's `price.usd_per_hour`; 0 stands for "not given".
    """
    if own_price > 0:
        return own_price, "price.usd_per_hour of the sweep"
    if device in TYPICAL_USD_PER_HOUR:
        return TYPICAL_USD_PER_HOUR[device], PRICE_BASIS
    return None, "no price known; give price.usd_per_hour"
