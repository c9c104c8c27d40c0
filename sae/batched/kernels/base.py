"""What a step asks of its kernels, and the pieces that go between them.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, L = levels (one unless the
dictionary is nested), N = entries of a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sae.batched.entries import Entries
from sae.optimizers.adam_rule import AdamRule
from sae.optimizers.byte_maps import CodedMoments


class Code(Protocol):
    """Which latents fire for which token, and how strongly; its layout is the kernels' own."""

    def fired_F(self) -> Tensor:
        """How many tokens each latent fires for, float32, [d_sae]."""

    def smallest_key(self) -> Tensor | None:
        """The smallest of the keys that were selected, a scalar; if nothing was, None or infinity.

        Infinity where the host would have to wait for the device to know.
        """


@dataclass(frozen=True)
class Pull:
    """Errors of a reconstruction, and what they pull at."""

    pull_LBD: Tensor
    """Errors of a level and of all wider ones, summed: they act on the latents of that level."""
    loss_L: Tensor
    """Squared error of each level, summed over tokens and dimensions."""
    widths: tuple[int, ...]
    """How many latents each level has, the whole dictionary last."""
    dots: Any
    """For each entry of the code, the product of its row of W_dec with its pull."""

    @property
    def error_BD(self) -> Tensor:
        """Reconstruction minus target, of the whole dictionary."""
        return self.pull_LBD[-1]


@dataclass(frozen=True)
class LatentGradients:
    """Gradients that belong to one latent each; W_enc's is transposed."""

    dec_FD: Tensor
    enc_FD: Tensor
    bias_F: Tensor
    """Of the pre-activation's bias."""


class StepKernels(Protocol):
    """The operations that decide how long a step takes."""

    name: str
    """`cpp`, `torch`, `triton`."""
    identity: str
    """Differs where results may differ in the last bits."""
    reads_bfloat16: bool
    """Whether `decode` takes W_dec, and `accumulate` inputs, in bfloat16; all else is float32."""

    def token_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, k: int, *, signed: bool
    ) -> Code:
        """Keep each token's k largest keys, (pre + bias) * norm; the values are pre + bias.

        Args:
            pre_BF: may be bfloat16, here and below; what is made of it is not.
            signed: whether values that are not positive are kept too.
        """

    def batch_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, num_kept: int
    ) -> Code:
        """Keep the batch's `num_kept` largest positive keys."""

    def decode(
        self,
        code: Code,
        W_dec_FD: Tensor,
        bias_D: Tensor | None,
        target_BD: Tensor,
        sign: float,
        widths: Sequence[int],
    ) -> Pull:
        """Reconstruct `sign * target` from a code; `widths` are the levels', the last one F."""

    def accumulate(
        self, code: Code, pull: Pull, input_BD: Tensor, scale: float, *, into: str
    ) -> LatentGradients:
        """Gradients of a code's latents, for a loss of scale / 2 times the squared errors.

        Args:
            input_BD: what the encoder saw.
            into: name of the buffers in the workspace that the result is in.
        """

    def entries(self, pre_BF: Tensor, bias_F: Tensor, bound_F: Tensor) -> Entries:
        """What is above a bound with its bias, or more than that; `pre_BF` may be overwritten."""

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Euclidean norm of several tensors together, a double scalar."""

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
        """Update a parameter and its moments in place.

        Args:
            transposed: whether `grad` is [F, D] of a parameter [D, F].
        """

    def coded_adam(
        self,
        param_RC: Tensor,
        grad_RC: Tensor,
        moments: CodedMoments,
        rule: AdamRule,
    ) -> None:
        """Update a parameter and its coded moments in place.

        Args:
            param_RC: a row a latent, as its moments are; a view of what is not stored like that.
            grad_RC: likewise.
        """
