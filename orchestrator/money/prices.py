"""What an hour of a device typically costs: a guide where nobody names a price."""

from __future__ import annotations

import re

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


def typical_usd_per_hour(device: str) -> float | None:
    """Price of one device-hour by the device's name, as anybody writes it; None if not listed.

    Args:
        device: a name of `orchestrator.planning.devices.GPUS`, what nvidia-smi calls a GPU
            ("NVIDIA A100-SXM4-80GB"), or Ray's accelerator type ("A100-80G"). Where it leaves
            the memory open, the smaller device counts.
    """
    words = [word for word in re.split(r"[^A-Z0-9]+", device.upper()) if word]
    glued = {first + second for first, second in zip(words, words[1:], strict=False)}
    sizes = {int(size) for word in words if (size := re.sub(r"G(B|IB)?$", "", word)).isdigit()}
    models = [name for name in TYPICAL_USD_PER_HOUR if name.split("-")[0] in {*words, *glued}]
    exact = [name for name in models if int(name.split("-")[1]) in sizes]
    return min((TYPICAL_USD_PER_HOUR[name] for name in exact or models), default=None)
