"""Latents of a batch that may fire, and what formulas do with them: all of them, or a few.

The formulas of ReLU-like architectures are written once, over `Entries`: element by element on
values that are [B, F] when most latents fire, and [N], one for each that does, when few do.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, N = entries, E = [B, F] or [N].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sae.batched.products import NARROW, weight_operand, widened
from sae.batched.workspace import Workspace


@dataclass(frozen=True)
class Gradient:
    """The loss's gradient by one parameter."""

    tensor: Tensor
    transposed: bool = False
    """Whether it is given as [F, D] of a parameter [D, F]."""


@dataclass(frozen=True)
class Reconstruction:
    """Error of a reconstruction and what it pulls at."""

    squares: Tensor
    """Squared errors, summed over tokens and dimensions, a scalar."""
    pull_BD: Tensor
    """The loss's gradient by the reconstruction."""
    dots_E: Tensor
    """The loss's gradient by each entry's activation; may be overwritten."""


class Entries(Protocol):
    """Pre-activations above a bound, laid out as suits their number."""

    pre_E: Tensor
    """Without the bias; may be overwritten."""

    def spread(self, values_F: Tensor) -> Tensor:
        """A number for each latent, so that it meets that latent's entries."""

    def spread_tokens(self, values_B: Tensor) -> Tensor:
        """A number for each token, likewise."""

    def sum_tokens(self, values_E: Tensor) -> Tensor:
        """Sum over tokens, [F]."""

    def count_tokens(self, act_E: Tensor) -> Tensor:
        """How many tokens each latent is not zero for, float32, [F]."""

    def sum_latents(self, values_E: Tensor) -> Tensor:
        """Sum over latents, [B]."""

    def reconstruct(
        self,
        act_E: Tensor,
        W_dec_FD: Tensor,
        b_dec_D: Tensor,
        x_BD: Tensor,
        scale: float,
        name: str,
    ) -> Reconstruction:
        """Decode activations; `scale` is the loss's gradient over the error.

        Args:
            name: of the buffers that the result is in; two at a time need two.
        """

    def decoder_gradient(
        self, act_E: Tensor, pull_BD: Tensor, onto_FD: Tensor | None = None
    ) -> Tensor:
        """Sum over tokens of activation times pull, [F, D]; added to `onto` if that is given."""

    def encoder_gradient(self, grad_pre_E: Tensor, input_BD: Tensor) -> Gradient:
        """Sum over tokens of input times pre-activation's gradient."""


class DenseEntries:
    """All latents of all tokens."""

    def __init__(self, pre_BF: Tensor, workspace: Workspace) -> None:
        self.pre_E = pre_BF
        self._workspace = workspace

    def spread(self, values_F: Tensor) -> Tensor:
        return values_F

    def spread_tokens(self, values_B: Tensor) -> Tensor:
        return values_B.unsqueeze(1)

    def sum_tokens(self, values_E: Tensor) -> Tensor:
        return values_E.sum(0)

    def count_tokens(self, act_E: Tensor) -> Tensor:
        count_E = self._take("count", act_E)
        return torch.ne(act_E, 0, out=count_E).sum(0).float()

    def sum_latents(self, values_E: Tensor) -> Tensor:
        return values_E.sum(1)

    def reconstruct(
        self,
        act_E: Tensor,
        W_dec_FD: Tensor,
        b_dec_D: Tensor,
        x_BD: Tensor,
        scale: float,
        name: str,
    ) -> Reconstruction:
        error_BD = torch.addmm(b_dec_D, act_E, W_dec_FD).sub_(x_BD)
        squares = error_BD.square().sum()
        pull_BD = error_BD.mul_(scale)
        dots_BF = self._take(f"{name}.dots", act_E)
        return Reconstruction(squares, pull_BD, torch.mm(pull_BD, W_dec_FD.T, out=dots_BF))

    def decoder_gradient(
        self, act_E: Tensor, pull_BD: Tensor, onto_FD: Tensor | None = None
    ) -> Tensor:
        if onto_FD is not None:
            return onto_FD.addmm_(act_E.T, pull_BD)
        shape = (act_E.shape[1], pull_BD.shape[1])
        grad_FD = self._workspace.take("main.grad_dec", shape, act_E.dtype, act_E.device)
        return torch.mm(act_E.T, pull_BD, out=grad_FD)

    def encoder_gradient(self, grad_pre_E: Tensor, input_BD: Tensor) -> Gradient:
        shape = (input_BD.shape[1], grad_pre_E.shape[1])
        grad_DF = self._workspace.take("main.grad_enc", shape, input_BD.dtype, input_BD.device)
        return Gradient(torch.mm(input_BD.T, grad_pre_E, out=grad_DF))

    def _take(self, name: str, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        shape = tuple(like.shape)
        return self._workspace.take(name, shape, dtype or like.dtype, like.device)


class NarrowEntries(DenseEntries):
    """All latents of all tokens, products in bfloat16.

    The pre-activations' own buffer, once they are widened, takes what goes into products.
    """

    def __init__(self, pre_BF: Tensor, workspace: Workspace) -> None:
        super().__init__(widened(pre_BF, workspace), workspace)
        self._operand_BF = pre_BF

    def reconstruct(
        self,
        act_E: Tensor,
        W_dec_FD: Tensor,
        b_dec_D: Tensor,
        x_BD: Tensor,
        scale: float,
        name: str,
    ) -> Reconstruction:
        W_dec_FD = weight_operand(W_dec_FD, NARROW, self._workspace)
        found_BD = torch.mm(self._operand_BF.copy_(act_E), W_dec_FD)
        error_BD = (found_BD + b_dec_D).sub_(x_BD)
        squares = error_BD.square().sum()
        pull_BD = error_BD.mul_(scale)
        found_BF = torch.mm(pull_BD.to(NARROW), W_dec_FD.T, out=self._operand_BF)
        return Reconstruction(squares, pull_BD, self._take(f"{name}.dots", act_E).copy_(found_BF))

    def decoder_gradient(
        self, act_E: Tensor, pull_BD: Tensor, onto_FD: Tensor | None = None
    ) -> Tensor:
        found_FD = torch.mm(self._operand_BF.copy_(act_E).T, pull_BD.to(NARROW))
        if onto_FD is not None:
            return onto_FD.add_(found_FD)
        return self._take("main.grad_dec", found_FD, pull_BD.dtype).copy_(found_FD)

    def encoder_gradient(self, grad_pre_E: Tensor, input_BD: Tensor) -> Gradient:
        found_DF = torch.mm(input_BD.to(NARROW).T, self._operand_BF.copy_(grad_pre_E))
        return Gradient(self._take("main.grad_enc", found_DF, input_BD.dtype).copy_(found_DF))


def dense_entries(pre_BF: Tensor, workspace: Workspace) -> DenseEntries:
    """All latents of all tokens; products in the pre-activations' type."""
    kind = NarrowEntries if pre_BF.dtype == NARROW else DenseEntries
    return kind(pre_BF, workspace)


def pass_positive(grad_E: Tensor, act_E: Tensor) -> Tensor:
    """Zero a gradient in place where the activation is not above zero: ReLU's backward pass.

    Masks of bools take torch on a CPU ten times as long.
    """
    passed: Tensor = torch.ops.aten.threshold_backward.grad_input(
        grad_E, act_E, 0, grad_input=grad_E
    )
    return passed
