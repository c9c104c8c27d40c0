"""What a family computes for one member and one batch: loss, firing, gradients.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.batched.dead_latents import DeadLatents
from sae.batched.entries import Gradient
from sae.batched.kernels.base import StepKernels
from sae.batched.products import weight_operand
from sae.batched.workspace import Workspace
from sae.member import Member


@dataclass(frozen=True)
class Outcome:
    """One member's pass over a batch, before clipping and the optimizer."""

    loss: Tensor
    """Scalar: all terms."""
    fired_F: Tensor
    """How many tokens each latent fired for, float32."""
    gradients: Mapping[str, Gradient]
    """By the name of the SAE's parameter; one for each."""


@dataclass(frozen=True)
class Bench:
    """What steps are computed with."""

    kernels: StepKernels
    workspace: Workspace
    dead: DeadLatents = field(default_factory=DeadLatents)


class Family(Protocol):
    """Loss and gradients of one or more architectures, by hand."""

    def supports(self, config: ArchitectureConfig) -> bool:
        """Whether every term that this configuration asks for is there."""

    def outcome(self, member: Member, x_BD: Tensor, dead_F: Tensor, bench: Bench) -> Outcome:
        """Loss and gradients on a batch; changes nothing but what a forward pass changes.

        Args:
            x_BD: activations as the SAE sees them (scaled).
            dead_F: which latents count as dead before this batch, bool.
        """


@runtime_checkable
class SparseFamily(Family, Protocol):
    """A family that reconstructs from the few latents that fire, without multiplying the rest."""

    def reconstruct(self, member: Member, x_BD: Tensor, bench: Bench) -> tuple[Tensor, Tensor]:
        """As in training: how many tokens each latent fires for [F], and what x becomes [B, D].

        Args:
            x_BD: activations as the SAE sees them (scaled).
        """


def encoder_input(member: Member, x_BD: Tensor) -> Tensor:
    """What the encoder multiplies: x, less the decoder's bias where that is asked for."""
    return x_BD - member.sae.b_dec.data if member.config.apply_b_dec_to_input else x_BD


def pre_activations(member: Member, input_BD: Tensor, bench: Bench, dtype: torch.dtype) -> Tensor:
    """input @ W_enc without a bias, [B, F], in the workspace; taken and given in `dtype`."""
    W_enc_DF = weight_operand(member.sae.W_enc.data, dtype, bench.workspace)
    shape = (input_BD.shape[0], W_enc_DF.shape[1])
    pre_BF = bench.workspace.take("pre", shape, dtype, W_enc_DF.device)
    return torch.mm(input_BD.to(dtype), W_enc_DF, out=pre_BF)


def input_bias_gradient(member: Member, grad_bias_F: Tensor) -> Tensor | float:
    """What reaches b_dec through the encoder's input; grad_bias is summed over the batch."""
    if not member.config.apply_b_dec_to_input:
        return 0.0
    W_enc_DF: Tensor = member.sae.W_enc.data
    return -(W_enc_DF @ grad_bias_F)


def add_norm_gradient(
    grad_dec_FD: Tensor, W_dec_FD: Tensor, norm_F: Tensor, grad_norm_F: Tensor
) -> None:
    """Add the gradient of decoder rows through their norms; none through a norm of zero."""
    ratio_F = torch.where(norm_F > 0, grad_norm_F / norm_F, torch.zeros_like(norm_F))
    grad_dec_FD.addcmul_(W_dec_FD, ratio_F.unsqueeze(1))
