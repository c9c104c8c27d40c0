"""JumpReLU: thresholds learned through a straight-through estimator, and a price on L0.

With g the loss's gradient by an activation and rect = 1[|pre - threshold| < bandwidth / 2], the
estimator is rect * (threshold * g + price of a firing) / bandwidth; its sum over tokens, negated,
is the threshold's gradient (Rajamanoharan et al. 2024, as sae_lens has it).

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, E = entries, X = dead latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.architectures.jumprelu import JumpReluConfig
from sae.batched.entries import Entries, Gradient
from sae.batched.outcome import (
    Bench,
    Outcome,
    add_norm_gradient,
    encoder_input,
    input_bias_gradient,
    pre_activations,
)
from sae.batched.products import multiply, product_dtype
from sae.member import Member

WINDOW_MARGIN = 1.001
"""Entries are gathered from a little below the window, so that rounding loses none."""


@dataclass(frozen=True)
class Sparsity:
    """What the sparsity loss adds."""

    loss: Tensor
    price_E: Tensor | float
    """Gradient by a latent's firing; met by the straight-through estimator alone."""
    slope_E: Tensor | None = None
    """Gradient by each entry's activation."""
    grad_norm_F: Tensor | None = None
    """Gradient by the decoder's norms."""


@dataclass(frozen=True)
class Estimate:
    """The straight-through estimator's sums over tokens, before their sign is turned."""

    by_act_F: Tensor
    by_price_F: Tensor
    grad_pre_E: Tensor | None
    """What it adds to the pre-activations' gradient; None unless that is asked for."""


@dataclass(frozen=True)
class PreActLoss:
    """Dead latents' price for staying below their threshold, and its gradients."""

    loss: Tensor
    dead_X: Tensor
    grad_pre_BX: Tensor
    grad_threshold_X: Tensor
    grad_norm_X: Tensor


class JumpReluFamily:
    """See `Family`."""

    def supports(self, config: ArchitectureConfig) -> bool:
        return isinstance(config, JumpReluConfig)

    @torch.no_grad()
    def outcome(self, member: Member, x_BD: Tensor, dead_F: Tensor, bench: Bench) -> Outcome:
        sae, scale = member.sae, 2.0 / len(x_BD)
        W_dec_FD, b_dec_D, b_enc_F = sae.W_dec.data, sae.b_dec.data, sae.b_enc.data
        # As sae_lens does: Adam may have taken a threshold below zero.
        threshold_F = sae.threshold.data.clamp_(min=0.0).to(x_BD.dtype)
        norm_F = W_dec_FD.norm(dim=1)
        input_BD = encoder_input(member, x_BD)
        pre_BF = pre_activations(member, input_BD, bench, product_dtype(member))
        idle = pre_act_loss(member, dead_F, pre_BF, threshold_F, norm_F)
        bound_F = threshold_F - 0.5 * WINDOW_MARGIN * sae.bandwidth
        entries = bench.kernels.entries(pre_BF, b_enc_F, bound_F)
        pre_E = entries.pre_E.add_(entries.spread(b_enc_F))
        # Comparisons into floats: masks of bools take torch on a CPU ten times as long.
        fires_E = torch.gt(pre_E, entries.spread(threshold_F), out=torch.empty_like(pre_E))
        act_E = pre_E * fires_E
        found = entries.reconstruct(act_E, W_dec_FD, b_dec_D, x_BD, scale, "main")
        fired_F = entries.sum_tokens(fires_E)
        price = member.trainer.get_coefficients()["l0"] / len(x_BD)
        sparsity = sparsity_of(member, entries, act_E, fires_E, norm_F, price)
        if sparsity.slope_E is not None:
            found.dots_E.add_(sparsity.slope_E)
        estimate = estimator(sae, entries, pre_E, threshold_F, found.dots_E, sparsity.price_E)
        grad_pre_E = found.dots_E.mul_(fires_E)
        if estimate.grad_pre_E is not None:
            grad_pre_E.add_(estimate.grad_pre_E)
        gradients = {
            "W_enc": entries.encoder_gradient(grad_pre_E, input_BD),
            "W_dec": Gradient(entries.decoder_gradient(act_E, found.pull_BD)),
            "b_enc": Gradient(entries.sum_tokens(grad_pre_E)),
            "threshold": Gradient(threshold_gradient(sae, estimate, idle)),
        }
        if sparsity.grad_norm_F is not None:
            add_norm_gradient(gradients["W_dec"].tensor, W_dec_FD, norm_F, sparsity.grad_norm_F)
        loss = found.squares / len(x_BD) + sparsity.loss
        if idle is not None:
            loss = loss + idle.loss
            add_pre_act_gradients(idle, gradients, input_BD, W_dec_FD, norm_F, pre_BF.dtype)
        through_input_D = input_bias_gradient(member, gradients["b_enc"].tensor)
        gradients["b_dec"] = Gradient(found.pull_BD.sum(0) + through_input_D)
        return Outcome(loss, fired_F.float(), gradients)


def sparsity_of(
    member: Member, entries: Entries, act_E: Tensor, fires_E: Tensor, norm_F: Tensor, price: float
) -> Sparsity:
    """The sparsity loss of the configured mode; `price` is its coefficient over the batch size."""
    config = member.sae.cfg
    if config.jumprelu_sparsity_loss_mode == "tanh":
        steepness_E = entries.spread(config.jumprelu_tanh_scale * norm_F)
        tanh_E = (act_E * steepness_E).tanh_()
        loss = price * tanh_E.sum()
        slope_E = (1 - tanh_E.square_()).mul_(price * config.jumprelu_tanh_scale)
        grad_norm_F = entries.sum_tokens(slope_E * act_E)
        return Sparsity(loss, 0.0, slope_E.mul_(entries.spread(norm_F)), grad_norm_F)
    l0_B = entries.sum_latents(fires_E)
    if config.jumprelu_sparsity_loss_mode == "step":
        return Sparsity(price * l0_B.sum(), price)
    target = config.target_l0
    excess_B = l0_B - target
    price_E = entries.spread_tokens(price * 4 / target * excess_B)
    return Sparsity(price * 2 / target * excess_B.square().sum(), price_E)


def estimator(
    sae: Any,
    entries: Entries,
    pre_E: Tensor,
    threshold_F: Tensor,
    grad_act_E: Tensor,
    price_E: Tensor | float,
) -> Estimate:
    """The straight-through estimator on entries inside the window; overwrites `pre_E`."""
    bandwidth = sae.bandwidth
    distance_E = pre_E.sub_(entries.spread(threshold_F)).div_(bandwidth).abs_()
    inside_E = torch.lt(distance_E, 0.5, out=torch.empty_like(pre_E))
    by_act_E = torch.mul(grad_act_E, inside_E, out=pre_E)
    by_act_F = entries.sum_tokens(by_act_E) * (threshold_F / bandwidth)
    by_price_E = inside_E.mul_(price_E / bandwidth)
    by_price_F = entries.sum_tokens(by_price_E)
    if not sae.cfg.jumprelu_ste_to_input:
        return Estimate(by_act_F, by_price_F, None)
    slope_E = by_act_E.mul_(entries.spread(threshold_F / bandwidth))
    return Estimate(by_act_F, by_price_F, slope_E.add_(by_price_E))


def threshold_gradient(sae: Any, estimate: Estimate, idle: PreActLoss | None) -> Tensor:
    """Gradient by the thresholds, in their own dtype.

    sae_lens keeps thresholds in float32 and casts them once for the activations and once for the
    losses, so both gradients are rounded before they meet.
    """
    dtype = sae.threshold.dtype
    by_losses_F = -estimate.by_price_F
    if idle is not None:
        by_losses_F.index_add_(0, idle.dead_X, idle.grad_threshold_X)
    return by_losses_F.to(dtype) - estimate.by_act_F.to(dtype)


def pre_act_loss(
    member: Member, dead_F: Tensor, pre_BF: Tensor, threshold_F: Tensor, norm_F: Tensor
) -> PreActLoss | None:
    """The loss that pulls dead latents towards their threshold; None if it is not asked for."""
    coefficient = member.sae.cfg.pre_act_loss_coefficient
    if coefficient is None or not dead_F.any():
        return None
    dead_X = dead_F.nonzero().squeeze(1)
    weight = coefficient / len(pre_BF)
    pre_BX = pre_BF[:, dead_X] + member.sae.b_enc.data[dead_X]
    gap_BX = (threshold_F[dead_X] - pre_BX).relu_()
    below_BX = (gap_BX > 0).to(gap_BX.dtype)
    norm_X = norm_F[dead_X]
    grad_norm_X = weight * gap_BX.sum(0)
    return PreActLoss(
        loss=(grad_norm_X * norm_X).sum(),
        dead_X=dead_X,
        grad_pre_BX=below_BX * (-weight * norm_X),
        grad_threshold_X=weight * norm_X * below_BX.sum(0),
        grad_norm_X=grad_norm_X,
    )


def add_pre_act_gradients(
    idle: PreActLoss,
    gradients: dict[str, Gradient],
    input_BD: Tensor,
    W_dec_FD: Tensor,
    norm_F: Tensor,
    dtype: torch.dtype,
) -> None:
    """Add what the pre-activation loss pulls at the weights and biases of dead latents.

    Args:
        dtype: of the product.
    """
    gradients["b_enc"].tensor.index_add_(0, idle.dead_X, idle.grad_pre_BX.sum(0))
    grad_XD, encoder = multiply(idle.grad_pre_BX.T, input_BD, dtype), gradients["W_enc"]
    if encoder.transposed:
        encoder.tensor.index_add_(0, idle.dead_X, grad_XD)
    else:
        encoder.tensor.index_add_(1, idle.dead_X, grad_XD.T)
    grad_norm_F = torch.zeros_like(norm_F).index_add_(0, idle.dead_X, idle.grad_norm_X)
    add_norm_gradient(gradients["W_dec"].tensor, W_dec_FD, norm_F, grad_norm_F)
