"""Ways to put one wrong term into sae_lens's training step, for a test of the parity tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sae_lens.saes import topk_sae
from sae_lens.saes.batchtopk_sae import BatchTopK
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE
from sae_lens.saes.topk_sae import TopKTrainingSAE
from sae_lens.training.optim import CoefficientScheduler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

Patch = pytest.MonkeyPatch
Apply = Callable[[Patch], None]


def around(target: Any, name: str, change: Callable[..., Any]) -> Apply:
    """Replace a function by `change(the original, *its arguments)`."""
    original = getattr(target, name)

    def changed(*args: Any, **kwargs: Any) -> Any:
        return change(original, *args, **kwargs)

    return lambda patch: patch.setattr(target, name, changed)


def after_init(change: Callable[[SAETrainer[Any, Any]], None]) -> Apply:
    """Change each trainer as it is made."""

    def changed(original: Any, trainer: SAETrainer[Any, Any], *args: Any, **kwargs: Any) -> None:
        original(trainer, *args, **kwargs)
        change(trainer)

    return around(SAETrainer, "__init__", changed)


def aux_loss(
    *, scaled: bool = True, relu: bool = False, detached: bool = True, biased: bool = False
) -> Apply:
    """sae_lens's auxiliary loss written out again, with one thing changed."""

    def changed(
        sae: Any,
        sae_in: Tensor,
        sae_out: Tensor,
        hidden_pre: Tensor,
        dead_neuron_mask: Tensor,
    ) -> Tensor:
        num_dead = int(dead_neuron_mask.sum())
        if not num_dead:
            return sae_out.new_tensor(0.0)
        residual = sae_in - sae_out
        residual = residual.detach() if detached else residual
        k_aux = sae_in.shape[-1] // 2
        acts = topk_sae.calculate_topk_aux_acts(min(k_aux, num_dead), hidden_pre, dead_neuron_mask)
        acts = acts.relu() if relu else acts
        rescaled = sae.cfg.rescale_acts_by_decoder_norm
        found = topk_sae.act_times_W_dec(acts, sae.W_dec, rescaled) + sae.b_dec * biased
        scale = min(num_dead / k_aux, 1.0) if scaled else 1.0
        loss = (found - residual).pow(2).sum(dim=-1).mean()
        return sae.cfg.aux_loss_coefficient * scale * loss

    return lambda patch: patch.setattr(TopKTrainingSAE, "calculate_topk_aux_loss", changed)


def fewer_aux_latents(original: Any, k_aux: int, **kwargs: Any) -> Any:
    return original(k_aux=max(1, k_aux - 1), **kwargs)


def alive_latents(original: Any, k_aux: int, hidden_pre: Tensor, dead_neuron_mask: Tensor) -> Any:
    return original(k_aux, hidden_pre, torch.zeros_like(dead_neuron_mask).bool() | True)


def dead_at(compare: Callable[[Tensor, int], Tensor]) -> Apply:
    dead = property(
        lambda trainer: compare(
            trainer.n_forward_passes_since_fired, trainer.cfg.dead_feature_window
        )
    )
    return lambda patch: patch.setattr(SAETrainer, "dead_neurons", dead)


def clip_each(original: Any, parameters: Any, max_norm: float) -> None:
    for parameter in parameters:
        original([parameter], max_norm)


def groups(change: Callable[[dict[str, Any]], None]) -> Apply:
    def changed(trainer: SAETrainer[Any, Any]) -> None:
        for group in trainer.optimizer.param_groups:
            change(group)

    return after_init(changed)


def swap_betas(group: dict[str, Any]) -> None:
    group["betas"] = tuple(reversed(group["betas"]))


def start_adam_late(trainer: SAETrainer[Any, Any]) -> None:
    """Bias correction of a step too many."""
    for parameter in trainer.sae.parameters():
        trainer.optimizer.state[parameter] = {
            "step": torch.tensor(1.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def correct_bias_once(original: Any, trainer: Any, *args: Any, **kwargs: Any) -> Any:
    """Every member with the step counter of the group's oldest."""
    for slots in trainer.optimizer.state.values():
        if "step" in slots and float(slots["step"]) == 1:
            slots["step"] += 10
    return original(trainer, *args, **kwargs)


def late(attribute: str) -> Apply:
    """A schedule that leaves out its first step."""

    def changed(trainer: SAETrainer[Any, Any]) -> None:
        scheduler = getattr(trainer, attribute)
        step, calls = scheduler.step, iter([True])

        def once_less() -> None:
            if not next(calls, False):
                step()

        scheduler.step = once_less

    return after_init(changed)


def late_coefficient(original: Any, scheduler: CoefficientScheduler) -> float:
    if not hasattr(scheduler, "was_called"):
        scheduler.was_called = True
        return scheduler.value
    return float(original(scheduler))


def times(target: Any, name: str, factor: float) -> Apply:
    return around(target, name, lambda original, *a, **k: factor * original(*a, **k))


def part_times(target: Any, part: str, factor: float) -> Apply:
    """One of the losses of an architecture, weighted."""

    def changed(original: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        losses = dict(original(*args, **kwargs))
        return {**losses, part: factor * losses[part]}

    return around(target, "calculate_aux_loss", changed)


def without_norms(target: Any) -> Apply:
    """The decoder's norms taken for one."""

    def changed(original: Any, sae: Any, *args: Any, **kwargs: Any) -> Any:
        plain = Tensor.norm

        def norm(tensor: Tensor, *a: Any, **k: Any) -> Tensor:
            found = plain(tensor, *a, **k)
            return torch.ones_like(found) if tensor is sae.W_dec else found

        with Patch.context() as patch:
            patch.setattr(Tensor, "norm", norm)
            return original(sae, *args, **kwargs)

    return around(target, "calculate_aux_loss", changed)


def constant_norms(original: Any, sae: Any, *args: Any, **kwargs: Any) -> Any:
    """The decoder's norms used, but no gradient through them."""
    plain = Tensor.norm

    def norm(tensor: Tensor, *a: Any, **k: Any) -> Tensor:
        found = plain(tensor, *a, **k)
        return found.detach() if tensor is sae.W_dec else found

    with Patch.context() as patch:
        patch.setattr(Tensor, "norm", norm)
        return original(sae, *args, **kwargs)


def constant_division(original: Any, acts: Tensor, W_dec: Tensor, rescaled: bool) -> Tensor:
    """Latents divided by the decoder's norms without a gradient to them."""
    norms_F = W_dec.norm(dim=-1).detach() if rescaled else 1.0
    return original(acts / norms_F, W_dec, False)


def detached_bias(original: Any, sae: Any, x: Tensor) -> Tensor:
    """No gradient to the decoder's bias through the encoder's input."""
    return original(sae, x).detach()


def uncentred(original: Any, sae: Any, x: Tensor) -> Tensor:
    return original(sae, x) + sae.b_dec * sae.cfg.apply_b_dec_to_input


def int_k_per_token(_: Any, activation: BatchTopK, x: Tensor) -> Tensor:
    """k counted for each token instead of over the batch."""
    top = x.relu().topk(max(1, int(activation.k)), dim=-1)
    return torch.zeros_like(x).scatter(-1, top.indices, top.values)


def inner_levels_lost(original: Any, sae: Any, *args: Any, **kwargs: Any) -> Any:
    levels = list(original(sae, *args, **kwargs))
    return iter(levels if kwargs.get("include_outer_loss") else levels[1:])


def no_threshold_factor(original: Any, ctx: Any, grad: Tensor) -> Any:
    x_grad, threshold_grad, *rest = original(ctx, grad)
    _, threshold = ctx.saved_tensors
    return x_grad, threshold_grad / threshold.clamp(min=1e-6), *rest


def ste_flipped(function: Any) -> Apply:
    def changed(original: Any, ctx: Any, grad: Tensor) -> Any:
        ctx.ste_to_input = not ctx.ste_to_input
        return original(ctx, grad)

    return lambda patch: patch.setattr(
        function,
        "backward",
        staticmethod(lambda ctx, grad, f=function.backward: changed(f, ctx, grad)),
    )


def static(target: Any, name: str, change: Callable[..., Any]) -> Apply:
    original = getattr(target, name)
    return lambda patch: patch.setattr(
        target, name, staticmethod(lambda *args: change(original, *args))
    )


def unclamped(_: Any, sae: Any, step_input: Any) -> Any:
    return super(JumpReLUTrainingSAE, sae).training_forward_pass(step_input)


def detached_decoder(original: Any, sae: Any, *args: Any, **kwargs: Any) -> Any:
    """The gate's reconstruction through a frozen decoder, as the paper has it."""
    losses = original(sae, *args, **kwargs)
    step_input = kwargs["step_input"]
    centred = step_input.sae_in - sae.b_dec * sae.cfg.apply_b_dec_to_input
    gate = torch.relu(centred @ sae.W_enc + sae.b_gate)
    found = gate @ sae.W_dec.detach() + sae.b_dec.detach()
    loss = (found - step_input.sae_in).pow(2).sum(dim=-1).mean()
    return {**losses, "auxiliary_reconstruction_loss": loss}


def counts_pre_activations(original: Any, sae: Any, step_input: Any) -> Any:
    """Latents counted as firing by their pre-activation."""
    output = original(sae, step_input)
    output.feature_acts = output.hidden_pre.relu()
    return output


def half_error(original: Any, *args: Any, **kwargs: Any) -> Any:
    return original(*args, **kwargs) / 2


def mse(change: Callable[..., Any]) -> Apply:
    def changed(trainer: SAETrainer[Any, Any]) -> None:
        plain = trainer.sae.mse_loss_fn
        trainer.sae.mse_loss_fn = lambda *args: change(plain, *args)

    return after_init(changed)


def config(name: str, change: Callable[[Any], Any]) -> Apply:
    """One number of the sae_lens configuration, changed after the SAE was made."""

    def changed(trainer: SAETrainer[Any, Any]) -> None:
        setattr(trainer.sae.cfg, name, change(getattr(trainer.sae.cfg, name)))

    return after_init(changed)


def bandwidth(trainer: SAETrainer[Any, Any]) -> None:
    trainer.sae.bandwidth *= 2
