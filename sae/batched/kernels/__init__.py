"""Kernels of the batched steps: C++ on a CPU, Triton on CUDA, or torch operations.

`SAEQ_KERNELS=torch` asks for torch, `cpp` and `triton` refuse to go on without theirs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache

import torch

from sae.batched.kernels.base import StepKernels
from sae.batched.kernels.compiling import CannotCompile as CannotCompile
from sae.batched.kernels.cpp_kernels import load_cpp_kernels
from sae.batched.kernels.torch_kernels import TorchKernels
from sae.batched.kernels.triton_check import wrong_on_device
from sae.batched.workspace import Workspace
from sae.capabilities import cannot_compile

logger = logging.getLogger(__name__)

VARIABLE = "SAEQ_KERNELS"
TRITON_FROM = (8, 0)
"""Compute capability that Triton supports (its README): Ampere, Ada, Hopper, Blackwell."""


class NoTriton(CannotCompile):
    """Triton cannot compute here; torch operations do the same, slower."""

    def __str__(self) -> str:
        return f"the Triton kernels cannot be used here: {self.reason}"


def load_triton_kernels(device: torch.device, workspace: Workspace) -> StepKernels:
    """Kernels for a CUDA device, or for a CPU under Triton's interpreter. Raises NoTriton."""
    reason = _without_triton(device)
    if reason:
        raise NoTriton(reason)
    try:
        # Not before: Triton is there on Linux only.
        from sae.batched.kernels.triton_kernels import TritonKernels
    except ImportError as error:
        raise NoTriton(f"Triton does not load ({error})") from error
    if device.type == "cuda":
        reason = _wrong_on(device)
        if reason:
            raise NoTriton(reason)
    return TritonKernels(device, workspace)


@cache
def _wrong_on(device: torch.device) -> str:
    """What the kernels get wrong on a device; they are tried out once a process."""
    from sae.batched.kernels.triton_kernels import TritonKernels

    try:
        # Parts so small that some latents of the trial have several.
        return wrong_on_device(TritonKernels(device, Workspace(), part=8), device)
    except Exception as error:  # of whatever library: it is the answer
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _without_triton(device: torch.device) -> str:
    """Why Triton cannot compute on a device; empty where it should."""
    if device.type == "cpu":
        interpreted = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
        return "" if interpreted else "they are for CUDA, not for cpu"
    if device.type != "cuda":
        return f"they are for CUDA, not for {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < TRITON_FROM and not torch.version.hip:
        has, needed = (".".join(map(str, one)) for one in (capability, TRITON_FROM))
        return f"the device has compute capability {has}, below {needed}"
    return cannot_compile("cuda")


def _load_cpp(device: torch.device, workspace: Workspace) -> StepKernels:
    if device.type != "cpu":
        raise CannotCompile(f"they are for the CPU, not for {device.type}")
    return load_cpp_kernels(workspace)


def _load_torch(device: torch.device, workspace: Workspace) -> StepKernels:
    del device
    return TorchKernels(workspace)


_LOADERS: dict[str, Callable[[torch.device, Workspace], StepKernels]] = {
    "cpp": _load_cpp,
    "torch": _load_torch,
    "triton": load_triton_kernels,
}
_FASTEST = {"cpu": "cpp", "cuda": "triton"}
"""By the device's type; torch on others."""

CHOICES = tuple(_LOADERS)


def make_kernels(
    device: torch.device, workspace: Workspace, asked: str | None = None
) -> StepKernels:
    """The fastest kernels that this machine has for a device.

    Args:
        asked: `cpp`, `torch` or `triton`; what `SAEQ_KERNELS` says unless given.

    Raises:
        ValueError: `SAEQ_KERNELS` is none of them.
        CannotCompile: what is asked for cannot be had.
    """
    asked = asked or os.environ.get(VARIABLE)
    if asked is not None and asked not in CHOICES:
        raise ValueError(
            f"{VARIABLE}={asked!r} is unknown; set it to {' or '.join(CHOICES)}, or leave it unset"
        )
    if asked is not None:
        return _LOADERS[asked](device, workspace)
    try:
        return _LOADERS[_FASTEST.get(device.type, "torch")](device, workspace)
    except CannotCompile as error:
        logger.warning("steps use torch operations: %s", error)
        return TorchKernels(workspace)
