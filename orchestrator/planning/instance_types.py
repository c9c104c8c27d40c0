"""Which GPU a rented machine has, by the name of its type or by what Ray calls its accelerator."""

from __future__ import annotations

import re

from orchestrator.planning.devices import GPUS, DeviceProfile

# Families whose machines all carry one GPU model. AWS: aws.amazon.com/ec2/instance-types
# (accelerated computing); Google: cloud.google.com/compute/docs/gpus.
GPU_OF_FAMILY: dict[str, str] = {
    "g4dn": "T4-16",
    "g5": "A10G-24",
    "g6": "L4-24",
    "g6e": "L40S-48",
    "p4d": "A100-40",
    "p4de": "A100-80",
    "p5": "H100-80",
    "p5e": "H200-141",
    "p5en": "H200-141",
    "a2-highgpu": "A100-40",
    "a2-megagpu": "A100-40",
    "a2-ultragpu": "A100-80",
    "a3-highgpu": "H100-80",
    "a3-megagpu": "H100-80",
    "a3-ultragpu": "H200-141",
    "g2-standard": "L4-24",
}


def gpu_of_instance(instance_type: str) -> DeviceProfile | None:
    """The GPU of `p4d.24xlarge`, `a2-highgpu-1g` and the like; None for a type not listed."""
    name = instance_type.strip().lower()
    family = name.partition(".")[0] if "." in name else "-".join(name.split("-")[:2])
    known = GPU_OF_FAMILY.get(family)
    return GPUS[known] if known is not None else None


def gpus_called(accelerator: str) -> list[DeviceProfile]:
    """The GPUs that a name may stand for: one for `A100-80G`, two for `A100`, none if unknown.

    Args:
        accelerator: Ray's accelerator type, a name of `GPUS`, or what nvidia-smi calls a GPU.
    """
    words = [word for word in re.split(r"[^A-Z0-9]+", accelerator.upper()) if word]
    glued = {first + second for first, second in zip(words, words[1:], strict=False)}
    sizes = {re.sub(r"G(B|IB)?$", "", word) for word in words}
    models = [name for name in GPUS if name.split("-")[0] in {*words, *glued}]
    exact = [name for name in models if name.split("-")[1] in sizes]
    return [GPUS[name] for name in exact or models]
