"""One optimizer step from a member's outcome: clipping, the update, counters, schedules.

Does what `SAETrainer.step` does after `loss.backward()`, and its bookkeeping before.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sae.batched.entries import Gradient
from sae.batched.kernels.base import StepKernels
from sae.batched.outcome import Bench, Family, Outcome
from sae.member import Member
from sae.optimizers.adam_rule import adam_rule
from sae.optimizers.by_parameter import adam_slots
from sae.optimizers.eight_bit_adam import EightBitAdam
from sae.optimizers.muon import Muon
from sae.optimizers.signum import Signum

MAX_GRADIENT_NORM = 1.0
"""sae_lens clips every SAE's gradients to it, always."""
CLIP_EPSILON = 1e-6
"""Of torch's `clip_grad_norm_`."""


@torch.no_grad()
def train(member: Member, batch_BD: Tensor, family: Family, bench: Bench) -> Tensor:
    """Train a member on one batch of raw activations; returns its loss, a scalar."""
    trainer = member.trainer
    batch_BD = batch_BD.to(member.device, member.sae.dtype)
    trainer.n_training_samples += len(batch_BD)
    x_BD = trainer.activation_scaler(batch_BD).contiguous()
    outcome = family.outcome(member, x_BD, trainer.dead_neurons, bench)
    count_firing(trainer, outcome.fired_F)
    bench.dead.note(member)
    update(member, outcome, bench.kernels)
    advance_schedules(trainer)
    return outcome.loss


def count_firing(trainer: Any, fired_F: Tensor) -> None:
    """Steps since each latent fired, and how often it did."""
    since_F: Tensor = trainer.n_forward_passes_since_fired
    since_F += 1
    since_F.masked_fill_(fired_F > 0, 0)
    trainer.act_freq_scores += fired_F
    trainer.n_frac_active_samples += trainer.cfg.train_batch_size_samples


def update(member: Member, outcome: Outcome, kernels: StepKernels) -> None:
    """Clip the gradients of this SAE together, then the optimizer on each of its parameters."""
    optimizer = member.trainer.optimizer
    named = dict(member.sae.named_parameters())
    assert named.keys() == outcome.gradients.keys()
    clip = clip_factor(kernels.norm([each.tensor for each in outcome.gradients.values()]))
    if isinstance(optimizer, Muon | Signum):
        move_by_own_rule(optimizer, named, outcome, clip)
        return
    for name, gradient in outcome.gradients.items():
        move_by_moments(optimizer, named[name], gradient, kernels, clip)


def move_by_moments(
    optimizer: torch.optim.Optimizer,
    param: Tensor,
    gradient: Gradient,
    kernels: StepKernels,
    clip: Tensor,
) -> None:
    """Adam on one parameter; its moments may be coded."""
    state = adam_state(optimizer, param)
    state["step"] += 1
    rule = adam_rule(optimizer.param_groups[0], int(state["step"]), clip)
    coded = optimizer.coded_moments(param) if isinstance(optimizer, EightBitAdam) else None
    if coded is None:
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        kernels.adam(
            param.data, gradient.tensor, mean, square, rule, transposed=gradient.transposed
        )
        return
    assert isinstance(optimizer, EightBitAdam)
    turned = optimizer.latents_are_columns(param)
    kernels.coded_adam(
        param.data.T if turned else param.data,
        gradient.tensor.T if turned != gradient.transposed else gradient.tensor,
        coded,
        rule,
    )


def move_by_own_rule(
    optimizer: Muon | Signum, named: Mapping[str, Tensor], outcome: Outcome, clip: Tensor
) -> None:
    """Each parameter by torch operations; clipping counts, since it weighs steps in the mean."""
    for name, gradient in outcome.gradients.items():
        grad = gradient.tensor.mul_(clip.to(gradient.tensor.dtype))
        grad = grad.T if gradient.transposed else grad
        optimizer.move(named[name], grad, optimizer.param_groups[0])


def clip_factor(norm: Tensor) -> Tensor:
    """What gradients of so large a norm are multiplied with; at most one."""
    return (MAX_GRADIENT_NORM / (norm + CLIP_EPSILON)).clamp(max=1.0)


def adam_state(optimizer: torch.optim.Optimizer, param: Tensor) -> dict[str, Tensor]:
    """A parameter's moments, made as torch's Adam makes them if there are none yet."""
    if isinstance(optimizer, EightBitAdam):
        return optimizer.state_of(param)
    state: dict[str, Tensor] = optimizer.state[param]
    if not state:
        state |= adam_slots(param)
    return state


def advance_schedules(trainer: Any) -> None:
    """Learning rate and coefficients of the next step."""
    # What the optimizer's own step would have noted; without it the scheduler warns.
    trainer.optimizer._opt_called = True
    trainer.lr_scheduler.step()
    for scheduler in trainer.coefficient_schedulers.values():
        scheduler.step()
