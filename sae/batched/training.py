"""One optimizer step from a member's outcome: clipping, Adam, counters, schedules.

Does what `SAETrainer.step` does after `loss.backward()`, and its bookkeeping before.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae.batched.kernels.base import AdamRule, StepKernels
from sae.batched.outcome import Bench, Family, Outcome
from sae.member import Member

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
    """Clip the gradients of this SAE together, then Adam on each of its parameters."""
    optimizer = member.trainer.optimizer
    named = dict(member.sae.named_parameters())
    assert named.keys() == outcome.gradients.keys()
    clip = clip_factor(kernels.norm([each.tensor for each in outcome.gradients.values()]))
    for name, gradient in outcome.gradients.items():
        state = adam_state(optimizer, named[name])
        state["step"] += 1
        kernels.adam(
            named[name].data,
            gradient.tensor,
            state["exp_avg"],
            state["exp_avg_sq"],
            adam_rule(optimizer.param_groups[0], int(state["step"]), clip),
            transposed=gradient.transposed,
        )


def clip_factor(norm: Tensor) -> Tensor:
    """What gradients of so large a norm are multiplied with; at most one."""
    return (MAX_GRADIENT_NORM / (norm + CLIP_EPSILON)).clamp(max=1.0)


def adam_rule(group: dict[str, Any], step: int, clip: Tensor) -> AdamRule:
    """The numbers of an optimizer's step number `step`, counted from one."""
    beta1, beta2 = group["betas"]
    return AdamRule(
        clip=clip,
        beta1=beta1,
        beta2=beta2,
        eps=group["eps"],
        step_size=group["lr"] / (1 - beta1**step),
        root_correction2=(1 - beta2**step) ** 0.5,
    )


def adam_state(optimizer: torch.optim.Optimizer, param: Tensor) -> dict[str, Tensor]:
    """A parameter's moments, made as torch's Adam makes them if there are none yet."""
    state: dict[str, Tensor] = optimizer.state[param]
    if not state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
        state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(param, memory_format=torch.preserve_format)
    return state


def advance_schedules(trainer: Any) -> None:
    """Learning rate and coefficients of the next step."""
    # What the optimizer's own step would have noted; without it the scheduler warns.
    trainer.optimizer._opt_called = True
    trainer.lr_scheduler.step()
    for scheduler in trainer.coefficient_schedulers.values():
        scheduler.step()
