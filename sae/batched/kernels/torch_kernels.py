"""Step kernels made of torch operations: for every device, and the other side of the C++ tests.

Codes are dense here: [B, F] with zeros where nothing fires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sae.batched.entries import DenseEntries, dense_entries
from sae.batched.kernels.base import Code, LatentGradients, Pull
from sae.batched.products import multiply
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule, torch_adam
from sae.optimizers.byte_maps import CodedMoments
from sae.optimizers.eight_bit_adam import coded_adam


@dataclass(frozen=True)
class DenseCode:
    """Values of all latents, zero where they are not kept."""

    value_BF: Tensor
    kept_BF: Tensor
    """Bool; where gradients pass."""
    key_BF: Tensor | None

    def fired_F(self) -> Tensor:
        return self.value_BF.bool().sum(0, dtype=torch.float32)

    def smallest_key(self) -> Tensor | None:
        if self.key_BF is None or not self.kept_BF.any():
            return None
        return self.key_BF[self.kept_BF].min()


class TorchKernels:
    """See `StepKernels`."""

    name = "torch"
    reads_bfloat16 = True

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.identity = f"torch {torch.__version__}"

    def token_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, k: int, *, signed: bool
    ) -> DenseCode:
        value_BF = pre_BF + bias_F
        if k < pre_BF.shape[1]:
            key_BF = value_BF if norm_F is None else value_BF * norm_F
            index_BK = key_BF.topk(k, dim=-1, sorted=False).indices
            kept_BF = torch.zeros_like(value_BF, dtype=torch.bool).scatter_(1, index_BK, True)
        else:
            kept_BF = torch.ones_like(value_BF, dtype=torch.bool)
        if not signed:
            # Not `> 0`: what is not a number must stay, and show in the loss.
            kept_BF &= ~(value_BF <= 0)
        return DenseCode(value_BF.masked_fill_(~kept_BF, 0), kept_BF, None)

    def batch_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, num_kept: int
    ) -> DenseCode:
        value_BF = pre_BF + bias_F
        key_BF = value_BF.relu() if norm_F is None else (value_BF * norm_F).relu()
        index = key_BF.flatten().topk(num_kept, sorted=False).indices
        kept_BF = torch.zeros_like(key_BF, dtype=torch.bool)
        kept_BF.view(-1).scatter_(0, index, True)
        kept_BF &= ~(key_BF <= 0)
        return DenseCode(value_BF.masked_fill_(~kept_BF, 0), kept_BF, key_BF)

    def decode(
        self,
        code: Code,
        W_dec_FD: Tensor,
        bias_D: Tensor | None,
        target_BD: Tensor,
        sign: float,
        widths: Sequence[int],
    ) -> Pull:
        assert isinstance(code, DenseCode)
        total_BD = target_BD * -sign
        if bias_D is not None:
            total_BD = total_BD + bias_D
        errors = []
        for low, high in pairwise((0, *widths)):
            total_BD = _add_product(total_BD, code.value_BF[:, low:high], W_dec_FD[low:high])
            errors.append(total_BD)
        error_LBD = torch.stack(errors)
        loss_L = error_LBD.square().sum(dim=(1, 2))
        pull_LBD = error_LBD if len(errors) == 1 else error_LBD.flip(0).cumsum(0).flip(0)
        dots_BF = torch.cat(
            [
                multiply(pull_BD, W_dec_FD[low:high].T, W_dec_FD.dtype)
                for pull_BD, (low, high) in zip(pull_LBD, pairwise((0, *widths)), strict=True)
            ],
            dim=1,
        )
        return Pull(pull_LBD, loss_L, tuple(widths), dots_BF)

    def accumulate(
        self, code: Code, pull: Pull, input_BD: Tensor, scale: float, *, into: str
    ) -> LatentGradients:
        assert isinstance(code, DenseCode)
        del into
        dec = [
            multiply(code.value_BF[:, low:high].T, pull_BD, input_BD.dtype)
            for pull_BD, (low, high) in zip(pull.pull_LBD, pairwise((0, *pull.widths)), strict=True)
        ]
        grad_pre_BF = (pull.dots * scale).masked_fill_(~code.kept_BF, 0)
        return LatentGradients(
            dec_FD=torch.cat(dec).mul_(scale),
            enc_FD=multiply(grad_pre_BF.T, input_BD, input_BD.dtype),
            bias_F=grad_pre_BF.sum(0),
        )

    def entries(self, pre_BF: Tensor, bias_F: Tensor, bound_F: Tensor) -> DenseEntries:
        del bias_F, bound_F
        return dense_entries(pre_BF, self._workspace)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([tensor.norm().double() for tensor in tensors]).norm()

    def adam(
        self,
        param: Tensor,
        grad: Tensor,
        mean: Tensor,
        square: Tensor,
        rule: AdamRule,
        *,
        transposed: bool,
    ) -> None:
        torch_adam(param, grad.T if transposed else grad, mean, square, rule)

    def coded_adam(
        self,
        param_RC: Tensor,
        grad_RC: Tensor,
        moments: CodedMoments,
        rule: AdamRule,
    ) -> None:
        coded_adam(param_RC, grad_RC, moments, rule)


def _add_product(total_BD: Tensor, left: Tensor, right: Tensor) -> Tensor:
    if right.dtype == total_BD.dtype:
        return torch.addmm(total_BD, left, right)
    return total_BD + multiply(left, right, right.dtype)
