"""Members stepped by hand-written gradients and fused kernels instead of autograd.

Each member is trained in place, on its own tensors, one after the other with all threads: a group
shares buffers and kernels, but no arithmetic. So members join and leave at no cost, and what a
member becomes does not depend on who else is there.

Shape suffixes: B = tokens in the batch, D = d_in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.batched.gated_family import GatedFamily
from sae.batched.jumprelu_family import JumpReluFamily
from sae.batched.kernels import CHOICES as KERNELS
from sae.batched.kernels import make_kernels
from sae.batched.outcome import Bench, Family, SparseFamily
from sae.batched.standard_family import StandardFamily
from sae.batched.topk_family import TopKFamily
from sae.batched.training import train
from sae.batched.workspace import Workspace
from sae.member import REFERENCE_STEPPER, Forward, Member, Stepper
from sae.step_backend import MemberStepFailed, ReferenceBackend, StepBackend

FAMILIES: tuple[Family, ...] = (TopKFamily(), StandardFamily(), JumpReluFamily(), GatedFamily())

STEPPER_PREFIX = "batched/"
DTYPES = ("float32", "float64")
"""Of weights; others are stepped by the reference backend."""


HELD_TO = ("cpu", "cuda")
"""Devices with kernels that tests hold to sae_lens's trainer."""

VARIABLE = "SAEQ_BACKEND"
CHOICES = ("batched", "reference")


class BatchedStepper:
    """Trains one member at a time; see `sae.member.Stepper`.

    Args:
        kernels: `cpp`, `torch` or `triton`; the fastest there are unless given.

    Raises:
        CannotCompile: what is asked for cannot be had.
    """

    def __init__(self, device: torch.device, kernels: str | None = None) -> None:
        workspace = Workspace()
        self._bench = Bench(make_kernels(device, workspace, kernels), workspace)
        self.name = f"{STEPPER_PREFIX}{self._bench.kernels.name}"
        self.identity = self._bench.kernels.identity

    def loss_of_step(self, member: Member, batch_BD: Tensor) -> Tensor:
        """Train a member on raw activations; returns the loss, a scalar."""
        family = family_of(member.config)
        assert family is not None
        return train(member, batch_BD, family, self._bench)

    def forward_of(self, member: Member) -> Forward | None:
        """A member as it trains; buffers are its own, so steps may go on meanwhile."""
        family = family_of(member.config)
        if not isinstance(family, SparseFamily):
            return None
        workspace = Workspace()
        kernels = make_kernels(member.device, workspace, self._bench.kernels.name)
        bench = Bench(kernels, workspace)
        scale, dtype = member.scale, member.sae.dtype

        def forward(x_ND: Tensor) -> tuple[Tensor, Tensor]:
            scaled_ND = (x_ND.to(member.device, dtype) * scale).contiguous()
            fired_F, scaled_hat_ND = family.reconstruct(member, scaled_ND, bench)
            return fired_F, scaled_hat_ND / scale

        return forward


class BatchedBackend:
    """Steps members by `BatchedStepper` where it knows their every term, else by sae_lens.

    Not for two threads at once.

    Args:
        device: whose kernels are made ready at once, rather than in the first step.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._steppers: dict[torch.device, BatchedStepper] = {}
        self._one_by_one = ReferenceBackend()
        self._stepper(torch.device(device))

    def step(
        self, members: Mapping[str, Member], batch_BD: Tensor, position: int
    ) -> dict[str, MemberStepFailed]:
        """Step each member once; returns what failed, by member id."""
        for member in members.values():
            known = family_of(member.config) is not None
            member.stepper = self._stepper(member.device) if known else REFERENCE_STEPPER
        return self._one_by_one.step(members, batch_BD, position)

    def _stepper(self, device: torch.device) -> BatchedStepper:
        if device not in self._steppers:
            self._steppers[device] = BatchedStepper(device)
        return self._steppers[device]


def family_of(config: ArchitectureConfig) -> Family | None:
    """Who can train a configuration by hand; None if nobody can."""
    if config.dtype not in DTYPES:
        return None
    return next((family for family in FAMILIES if family.supports(config)), None)


def default_backend(device: torch.device) -> StepBackend:
    """The backend that `SAEQ_BACKEND` names, else the batched one on a CPU and on CUDA.

    On other devices sae_lens's: nobody has held the batched one to it there.

    Raises:
        ValueError: `SAEQ_BACKEND` names none.
    """
    asked = os.environ.get(VARIABLE) or ("batched" if device.type in HELD_TO else "reference")
    if asked not in CHOICES:
        raise ValueError(
            f"{VARIABLE}={asked!r} is unknown; set it to {' or '.join(CHOICES)}, or leave it unset"
        )
    return BatchedBackend(device) if asked == "batched" else ReferenceBackend()


def stepper_named(name: str, device: torch.device) -> Stepper:
    """The stepper that a member's record names.

    Raises:
        ValueError: there is none of that name.
        CannotCompile: its kernels cannot be had here.
    """
    if name == REFERENCE_STEPPER.name:
        return REFERENCE_STEPPER
    kernels = name.removeprefix(STEPPER_PREFIX)
    if kernels == name or kernels not in KERNELS:
        known = [REFERENCE_STEPPER.name, *(f"{STEPPER_PREFIX}{each}" for each in KERNELS)]
        raise ValueError(f"stepper {name!r} is unknown; known are {', '.join(known)}")
    return BatchedStepper(device, kernels)
