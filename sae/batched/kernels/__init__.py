"""Kernels of the batched steps: C++ compiled on first use, or torch operations.

`SAEQ_KERNELS=torch` asks for torch, `SAEQ_KERNELS=cpp` refuses to go on without C++.
"""

from __future__ import annotations

import logging
import os

import torch

from sae.batched.kernels.base import StepKernels
from sae.batched.kernels.compiling import CannotCompile as CannotCompile
from sae.batched.kernels.cpp_kernels import load_cpp_kernels
from sae.batched.kernels.torch_kernels import TorchKernels
from sae.batched.workspace import Workspace

logger = logging.getLogger(__name__)

VARIABLE = "SAEQ_KERNELS"
CHOICES = ("cpp", "torch")


def make_kernels(
    device: torch.device, workspace: Workspace, asked: str | None = None
) -> StepKernels:
    """The fastest kernels that this machine has for a device.

    Args:
        asked: `cpp` or `torch`; what `SAEQ_KERNELS` says unless given.

    Raises:
        ValueError: `SAEQ_KERNELS` is neither `cpp` nor `torch`.
        CannotCompile: C++ is asked for and cannot be had.
    """
    asked = asked or os.environ.get(VARIABLE)
    if asked is not None and asked not in CHOICES:
        raise ValueError(
            f"{VARIABLE}={asked!r} is unknown; set it to {' or '.join(CHOICES)}, or leave it unset"
        )
    if asked == "torch" or (asked is None and device.type != "cpu"):
        return TorchKernels(workspace)
    if device.type != "cpu":
        raise CannotCompile(f"they are for the CPU, not for {device.type}")
    try:
        return load_cpp_kernels(workspace)
    except CannotCompile as error:
        if asked == "cpp":
            raise
        logger.info("steps use torch operations instead of C++: %s", error)
        return TorchKernels(workspace)
