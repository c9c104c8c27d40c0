"""TopK, BatchTopK and their Matryoshka form: only the encoder's forward pass is dense.

Ranking latents by pre-activation times decoder norm and decoding with the activation over that
norm leaves no gradient through the norm: the two cancel, in the auxiliary loss too. So the values
here are pre-activations, and the norm only ranks.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, X = dead latents.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.architectures.base import BatchTopKFamilyConfig, TopKFamilyConfig
from sae.batched.entries import Gradient
from sae.batched.kernels.base import Code, LatentGradients, Pull, StepKernels
from sae.batched.kernels.torch_kernels import TorchKernels
from sae.batched.outcome import (
    Bench,
    Outcome,
    encoder_input,
    input_bias_gradient,
    pre_activations,
)
from sae.batched.products import product_dtype, weight_operand
from sae.member import Member

DENSE_DEAD_RATIO = 3
"""Up to so many times as many dead latents as are kept, multiplying them all is the faster way."""


class TopKFamily:
    """See `Family`."""

    def supports(self, config: ArchitectureConfig) -> bool:
        return isinstance(config, TopKFamilyConfig)

    @torch.no_grad()
    def outcome(self, member: Member, x_BD: Tensor, dead_F: Tensor, bench: Bench) -> Outcome:
        sae, kernels = member.sae, bench.kernels
        input_BD = encoder_input(member, x_BD)
        pre_BF = pre_activations(member, input_BD, bench, product_dtype(member))
        norm_F = decoder_norm(member)
        code = main_code(member, pre_BF, norm_F, kernels)
        gathered = gathered_dtype(member, kernels)
        W_dec_FD = weight_operand(sae.W_dec.data, gathered, bench.workspace)
        pull = kernels.decode(code, W_dec_FD, sae.b_dec.data, x_BD, 1.0, levels(member))
        scale = 2.0 / len(x_BD)
        latents = kernels.accumulate(code, pull, input_BD.to(gathered), scale, into="main")
        loss = pull.loss_L.sum() / len(x_BD)
        pulls_dead = member.sae.cfg.aux_loss_coefficient != 0
        dead_X = bench.dead.indices(member, dead_F) if pulls_dead else None
        if dead_X is not None:
            for low, high, error_BD in residuals(member, pull):
                group_X = dead_X[(dead_X >= low) & (dead_X < high)]
                if len(group_X):
                    loss = loss + add_auxiliary(
                        member, group_X, pre_BF, norm_F, error_BD, input_BD, latents, bench
                    )
        if isinstance(member.config, BatchTopKFamilyConfig):
            follow_threshold(member, code)
        grad_b_dec_D = scale * pull.pull_LBD[0].sum(0)
        grad_b_dec_D += input_bias_gradient(member, latents.bias_F)
        return Outcome(
            loss=loss,
            fired_F=code.fired_F(),
            gradients={
                "W_enc": Gradient(latents.enc_FD, transposed=True),
                "W_dec": Gradient(latents.dec_FD),
                "b_enc": Gradient(latents.bias_F),
                "b_dec": Gradient(grad_b_dec_D),
            },
        )

    @torch.no_grad()
    def reconstruct(self, member: Member, x_BD: Tensor, bench: Bench) -> tuple[Tensor, Tensor]:
        input_BD = encoder_input(member, x_BD)
        # In the weights' own precision, whatever steps are in: sae_lens evaluates so, too.
        pre_BF = pre_activations(member, input_BD, bench, input_BD.dtype)
        code = main_code(member, pre_BF, decoder_norm(member), bench.kernels)
        W_dec_FD, b_dec_D = member.sae.W_dec.data, member.sae.b_dec.data
        pull = bench.kernels.decode(code, W_dec_FD, b_dec_D, x_BD, 1.0, (len(W_dec_FD),))
        return code.fired_F(), x_BD + pull.error_BD


def gathered_dtype(member: Member, kernels: StepKernels) -> torch.dtype:
    """Of the decoder's rows and of inputs, as kernels get them.

    Where they read bfloat16, a step with autocast rounds both, as sae_lens does: a copy of the
    decoder costs three passes over it, in half of which a number is two bytes, and spares half the
    bytes of k rows a token, twice. Others get the float32 master, which is no further from exact.
    """
    dtype: torch.dtype = member.sae.dtype
    return product_dtype(member) if kernels.reads_bfloat16 else dtype


def decoder_norm(member: Member) -> Tensor | None:
    """What pre-activations are multiplied with before they are ranked, [F]; None for nothing."""
    norm_F: Tensor = member.sae.W_dec.data.norm(dim=-1)
    return norm_F if member.sae.cfg.rescale_acts_by_decoder_norm else None


def levels(member: Member) -> tuple[int, ...]:
    """Widths of the nested dictionaries, the whole one last."""
    widths = getattr(member.sae.cfg, "matryoshka_widths", None)
    return tuple(widths) if widths else (member.config.d_sae,)


def main_code(member: Member, pre_BF: Tensor, norm_F: Tensor | None, kernels: StepKernels) -> Code:
    """The latents that fire: k a token, or k a token on average over the batch."""
    k, bias_F = member.sae.cfg.k, member.sae.b_enc.data
    if isinstance(member.config, BatchTopKFamilyConfig):
        return kernels.batch_code(pre_BF, bias_F, norm_F, int(k * len(pre_BF)))
    return kernels.token_code(pre_BF, bias_F, norm_F, k, signed=False)


def residuals(member: Member, pull: Pull) -> list[tuple[int, int, Tensor]]:
    """(first latent, end, reconstruction minus x): whose dead latents make up for which error."""
    if not getattr(member.sae.cfg, "use_matryoshka_aux_loss", False):
        return [(0, member.config.d_sae, pull.error_BD)]
    pulls = pull.pull_LBD
    errors = [here - wider for here, wider in pairwise(pulls)] + [pulls[-1]]
    return [
        (low, high, error_BD)
        for (low, high), error_BD in zip(pairwise((0, *pull.widths)), errors, strict=True)
    ]


def auxiliary_size(d_in: int, num_dead: int) -> tuple[int, float]:
    """How many dead latents a token uses, and the factor on their loss.

    Gao et al. 2024, appendix B.1, as sae_lens has it.
    """
    k_aux = d_in // 2
    return min(k_aux, num_dead), min(num_dead / k_aux, 1.0)


def add_auxiliary(
    member: Member,
    dead_X: Tensor,
    pre_BF: Tensor,
    norm_F: Tensor | None,
    error_BD: Tensor,
    input_BD: Tensor,
    latents: LatentGradients,
    bench: Bench,
) -> Tensor:
    """The loss by which dead latents reconstruct what is left over; adds its gradients.

    Args:
        dead_X: indices of the dead latents that take part.
        error_BD: reconstruction minus x, whose negative they aim at.
        latents: gradients of all latents, added to.
    """
    sae, (B, D) = member.sae, error_BD.shape
    k_aux, factor = auxiliary_size(D, len(dead_X))
    weight = sae.cfg.aux_loss_coefficient * factor
    kernels = bench.kernels
    if len(dead_X) <= DENSE_DEAD_RATIO * k_aux:
        kernels = TorchKernels(bench.workspace)
    bias_X = sae.b_enc.data[dead_X]
    norm_X = None if norm_F is None else norm_F[dead_X]
    gathered = gathered_dtype(member, kernels)
    # Copies of a wide SAE's dead latents are large: those of a step before are gone by the next.
    code = kernels.token_code(pre_BF[:, dead_X], bias_X, norm_X, k_aux, signed=True)
    W_dec_XD = sae.W_dec.data[dead_X].to(gathered)
    pull = kernels.decode(code, W_dec_XD, None, error_BD, -1.0, (len(dead_X),))
    found = kernels.accumulate(code, pull, input_BD.to(gathered), 2.0 * weight / B, into="aux")
    latents.dec_FD.index_add_(0, dead_X, found.dec_FD)
    latents.enc_FD.index_add_(0, dead_X, found.enc_FD)
    latents.bias_F.index_add_(0, dead_X, found.bias_F)
    return weight * pull.loss_L[0] / B


def follow_threshold(member: Member, code: Code) -> None:
    """Move the threshold of the exported SAE towards the smallest activation that was kept."""
    sae = member.sae
    smallest = code.smallest_key()
    if smallest is None:
        return
    rate, before = sae.cfg.topk_threshold_lr, sae.topk_threshold
    moved = (1 - rate) * before + rate * smallest.to(before.dtype)
    sae.topk_threshold = torch.where(smallest.isposinf(), before, moved)
