"""Standard: ReLU latents with an L1 price on activation times decoder norm.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, E = entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.architectures.standard import StandardConfig
from sae.batched.entries import Gradient, pass_positive
from sae.batched.outcome import (
    Bench,
    Outcome,
    add_norm_gradient,
    encoder_input,
    input_bias_gradient,
    pre_activations,
)
from sae.batched.products import product_dtype
from sae.member import Member


class StandardFamily:
    """See `Family`."""

    def supports(self, config: ArchitectureConfig) -> bool:
        return isinstance(config, StandardConfig) and config.lp_norm == 1

    @torch.no_grad()
    def outcome(self, member: Member, x_BD: Tensor, dead_F: Tensor, bench: Bench) -> Outcome:
        del dead_F
        sae = member.sae
        scale = 2.0 / len(x_BD)
        W_dec_FD, b_dec_D, b_enc_F = sae.W_dec.data, sae.b_dec.data, sae.b_enc.data
        norm_F = W_dec_FD.norm(dim=1)
        input_BD = encoder_input(member, x_BD)
        pre_BF = pre_activations(member, input_BD, bench, product_dtype(member))
        entries = bench.kernels.entries(pre_BF, b_enc_F, torch.zeros_like(b_enc_F))
        act_E = entries.pre_E.add_(entries.spread(b_enc_F)).relu_()
        found = entries.reconstruct(act_E, W_dec_FD, b_dec_D, x_BD, scale, "main")
        price = member.trainer.get_coefficients()["l1"] / len(x_BD)
        sum_F = entries.sum_tokens(act_E)
        grad_act_E = found.dots_E.add_(entries.spread(price * norm_F))
        grad_pre_E = pass_positive(grad_act_E, act_E)
        grad_dec_FD = entries.decoder_gradient(act_E, found.pull_BD)
        add_norm_gradient(grad_dec_FD, W_dec_FD, norm_F, price * sum_F)
        grad_b_enc_F = entries.sum_tokens(grad_pre_E)
        grad_b_dec_D = found.pull_BD.sum(0) + input_bias_gradient(member, grad_b_enc_F)
        return Outcome(
            loss=found.squares / len(x_BD) + price * (sum_F * norm_F).sum(),
            fired_F=entries.count_tokens(act_E),
            gradients={
                "W_enc": entries.encoder_gradient(grad_pre_E, input_BD),
                "W_dec": Gradient(grad_dec_FD),
                "b_enc": Gradient(grad_b_enc_F),
                "b_dec": Gradient(grad_b_dec_D),
            },
        )
