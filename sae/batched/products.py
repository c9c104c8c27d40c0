"""Matrix products of a step: in the weights' own precision, or in bfloat16 for `autocast`.

Under torch's autocast sae_lens rounds both sides of a product to bfloat16, and what comes out, too;
sums inside are float32. All else stays float32: biases, norms, ranking, errors, losses, sums over
tokens, gradients once they are there, moments, and the weights themselves.

A weight is copied to bfloat16 into one buffer of the workspace, just before what needs it: W_enc
and W_dec one after the other, and those of all members.

Shape suffixes: B = tokens in the batch, F = latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae.batched.workspace import Workspace
from sae.member import Member

NARROW = torch.bfloat16
WEIGHT_BUFFER = "bf16.weight"
WIDE_BUFFER = "pre.wide"


def product_dtype(member: Member) -> torch.dtype:
    """What a training step's products are taken in."""
    dtype: torch.dtype = member.sae.dtype
    return NARROW if member.config.autocast else dtype


def weight_operand(weight: Tensor, dtype: torch.dtype, workspace: Workspace) -> Tensor:
    """A weight as a product takes it; a copy is overwritten when the next one is asked for."""
    if weight.dtype == dtype:
        return weight
    copy = workspace.take(WEIGHT_BUFFER, tuple(weight.shape), dtype, weight.device)
    return copy.copy_(weight)


def multiply(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right, both rounded to `dtype`; in float32 where that is bfloat16."""
    found = torch.mm(left.to(dtype), right.to(dtype))
    return found.float() if dtype == NARROW else found


def widened(pre_BF: Tensor, workspace: Workspace) -> Tensor:
    """Pre-activations for what takes no bfloat16: a float32 copy, or themselves if they are none.

    A copy is overwritten when the next one is asked for.
    """
    if pre_BF.dtype != NARROW:
        return pre_BF
    shape = tuple(pre_BF.shape)
    return workspace.take(WIDE_BUFFER, shape, torch.float32, pre_BF.device).copy_(pre_BF)
