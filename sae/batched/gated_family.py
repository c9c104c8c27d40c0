"""Gated: one encoder for gate and magnitude, and a second reconstruction from the gate alone.

With pre = input @ W_enc the magnitude is pre * exp(r_mag) + b_mag: one product serves both.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, E = entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.architectures.gated import GatedConfig
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


class GatedFamily:
    """See `Family`."""

    def supports(self, config: ArchitectureConfig) -> bool:
        return isinstance(config, GatedConfig)

    @torch.no_grad()
    def outcome(self, member: Member, x_BD: Tensor, dead_F: Tensor, bench: Bench) -> Outcome:
        del dead_F
        sae = member.sae
        scale = 2.0 / len(x_BD)
        W_dec_FD, b_dec_D, b_gate_F = sae.W_dec.data, sae.b_dec.data, sae.b_gate.data
        norm_F, stretch_F = W_dec_FD.norm(dim=1), sae.r_mag.data.exp()
        input_BD = encoder_input(member, x_BD)
        pre_BF = pre_activations(member, input_BD, bench, product_dtype(member))
        entries = bench.kernels.entries(pre_BF, b_gate_F, torch.zeros_like(b_gate_F))
        stretched_E = entries.pre_E * entries.spread(stretch_F)
        gate_E = entries.pre_E.add_(entries.spread(b_gate_F)).relu_()
        magnitude_E = (stretched_E + entries.spread(sae.b_mag.data)).relu_()
        act_E = pass_positive(magnitude_E, gate_E)
        found = entries.reconstruct(act_E, W_dec_FD, b_dec_D, x_BD, scale, "main")
        by_gate = entries.reconstruct(gate_E, W_dec_FD, b_dec_D, x_BD, scale, "gate")
        price = member.trainer.get_coefficients()["l1"] / len(x_BD)
        gate_sum_F = entries.sum_tokens(gate_E)
        grad_mag_E = pass_positive(found.dots_E, act_E)
        grad_gate_E = by_gate.dots_E.add_(entries.spread(price * norm_F))
        pass_positive(grad_gate_E, gate_E)
        grad_dec_FD = entries.decoder_gradient(act_E, found.pull_BD)
        entries.decoder_gradient(gate_E, by_gate.pull_BD, grad_dec_FD)
        add_norm_gradient(grad_dec_FD, W_dec_FD, norm_F, price * gate_sum_F)
        fired_F = entries.count_tokens(act_E)
        gradients = {
            "W_dec": Gradient(grad_dec_FD),
            "b_gate": Gradient(entries.sum_tokens(grad_gate_E)),
            "b_mag": Gradient(entries.sum_tokens(grad_mag_E)),
            "r_mag": Gradient(entries.sum_tokens(stretched_E.mul_(grad_mag_E))),
        }
        grad_pre_E = grad_mag_E.mul_(entries.spread(stretch_F)).add_(grad_gate_E)
        gradients["W_enc"] = entries.encoder_gradient(grad_pre_E, input_BD)
        grad_b_dec_D = found.pull_BD.sum(0) + by_gate.pull_BD.sum(0)
        grad_b_dec_D += input_bias_gradient(member, entries.sum_tokens(grad_pre_E))
        gradients["b_dec"] = Gradient(grad_b_dec_D)
        loss = (found.squares + by_gate.squares) / len(x_BD) + price * (gate_sum_F * norm_F).sum()
        return Outcome(loss, fired_F, gradients)
