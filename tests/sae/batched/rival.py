"""A bare loop over sae_lens's `SAETrainer.step`, and the comparison with members stepped by us."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sae.member import Member
from sae.step_backend import StepBackend
from tests.sae.batched.parity_cases import NUM_STEPS, Life
from tests.sae.batched.planted import PlantedActivations

SOURCE = PlantedActivations()
AUX_LOSSES = ("auxiliary_reconstruction_loss", "pre_act_loss")


@dataclass
class Ran:
    """One SAE after its steps."""

    state: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)
    """The whole loss of each step."""
    aux_losses: list[float] = field(default_factory=list)
    """Of dead latents, a step."""


def bare_trainer(life: Life, device: str = "cpu") -> SAETrainer[Any, Any]:
    """sae_lens's trainer as its own runner would make it, from the same initial weights."""
    config = life.config
    sae = config.build_sae(SOURCE.d_in, device, {})
    normalises = config.normalize_activations != "none"
    scale = SOURCE.scale if normalises else 1.0
    if config.b_dec_init == "mean":
        sae.b_dec.data.copy_(SOURCE.mean_D * scale)
    sink_latents(sae, life.depth)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=NUM_STEPS * SOURCE.batch_tokens,
            train_batch_size_samples=SOURCE.batch_tokens,
            lr=config.learning_rate,
            lr_end=config.learning_rate / 10 if config.lr_end is None else config.lr_end,
            lr_scheduler_name=config.lr_schedule,
            lr_warm_up_steps=config.lr_warm_up_steps,
            lr_decay_steps=config.lr_decay_steps,
            adam_beta1=config.adam_beta1,
            adam_beta2=config.adam_beta2,
            autocast=config.autocast,
            device=device,
            dead_feature_window=config.dead_feature_window,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter(()),
    )
    if normalises:
        trainer.activation_scaler.scaling_factor = scale
    return trainer


def fresh_member(life: Life, device: str = "cpu") -> Member:
    """The same SAE as a member."""
    member = Member(
        life.config,
        hook="layer",
        d_in=SOURCE.d_in,
        total_tokens=NUM_STEPS * SOURCE.batch_tokens,
        batch_tokens=SOURCE.batch_tokens,
        scale=SOURCE.scale,
        mean_D=SOURCE.mean_D,
        device=device,
    )
    sink_latents(member.sae, life.depth)
    return member


def sink_latents(sae: Any, depth: float) -> None:
    """Start every third latent so low that it does not fire; thresholds in the SAE's precision.

    sae_lens keeps JumpReLU's threshold in float32 whatever the SAE's type, which would hide a
    wrong term behind its rounding.
    """
    for name, parameter in sae.named_parameters():
        if name in ("b_enc", "b_gate"):
            parameter.data[::3] -= depth
        if name == "threshold":
            parameter.data = parameter.data.to(sae.dtype)


def run_bare(life: Life) -> Ran:
    """Step one SAE alone, at the positions at which it is due."""
    trainer = bare_trainer(life)
    ran = Ran({})
    for position in filter(life.is_due, range(NUM_STEPS)):
        output = trainer.step(SOURCE.batch_at(position).to(trainer.sae.dtype))
        trainer.n_training_steps += 1
        parts = {name: loss.item() for name, loss in output.losses.items()}
        ran.losses.append(output.loss.item())
        ran.aux_losses.append(sum(parts.get(name, 0.0) for name in AUX_LOSSES))
    ran.state = whole_state(trainer)
    return ran


def run_group(backend: StepBackend, lives: dict[str, Life], device: str = "cpu") -> dict[str, Ran]:
    """Step members together; one that has left is looked at when the others are done."""
    members: dict[str, Member] = {}
    ran = {name: Ran({}) for name in lives}
    for position in range(NUM_STEPS):
        due = [name for name, life in lives.items() if life.is_due(position)]
        for name in due:
            if name not in members:
                members[name] = fresh_member(lives[name], device)
        failures = backend.step(
            {name: members[name] for name in due}, SOURCE.batch_at(position), position
        )
        assert not failures, failures
        for name in due:
            ran[name].losses.append(members[name].losses.report()["loss"])
    for name, member in members.items():
        ran[name].state = whole_state(member.trainer)
    return ran


def whole_state(trainer: SAETrainer[Any, Any]) -> dict[str, Tensor]:
    """Everything that a step changes, by name, copied."""
    names = [name for name, _ in trainer.sae.named_parameters()]
    state = {f"sae.{name}": value for name, value in trainer.sae.state_dict().items()}
    for index, slots in trainer.optimizer.state_dict()["state"].items():
        state |= {f"adam.{names[index]}.{slot}": value for slot, value in slots.items()}
    state["frequencies"] = trainer.act_freq_scores
    state["since_fired"] = trainer.n_forward_passes_since_fired
    numbers = {
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "lr_steps": trainer.lr_scheduler.last_epoch,
        "samples": trainer.n_training_samples,
        "steps": trainer.n_training_steps,
        "frequency_samples": trainer.n_frac_active_samples,
        **{f"coefficient.{n}": s.value for n, s in trainer.coefficient_schedulers.items()},
    }
    state |= {name: torch.tensor(float(value)).double() for name, value in numbers.items()}
    return {name: value.detach().clone().cpu() for name, value in state.items()}


def differences(one: Ran, other: Ran, *, tolerance: float, loss_tolerance: float) -> list[str]:
    """What of two runs is not equal, as readable lines; empty if all is.

    Args:
        tolerance: norm of a tensor's difference over the norm of the tensor.
        loss_tolerance: relative; a member keeps its losses in float32.
    """
    if one.state.keys() != other.state.keys():
        return [f"only one side has {sorted(one.state.keys() ^ other.state.keys())}"]
    found = []
    for name, value in one.state.items():
        apart = float((value.double() - other.state[name].double()).norm())
        size = float(other.state[name].double().norm())
        if not apart <= tolerance * size:
            found.append(f"{name} differs by {apart:.3g} of {size:.3g}")
    return found + list(_loss_differences(one.losses, other.losses, loss_tolerance))


def _loss_differences(one: list[float], other: list[float], tolerance: float) -> Iterable[str]:
    if len(one) != len(other):
        yield f"{len(one)} steps, not {len(other)}"
        return
    for step, (ours, theirs) in enumerate(zip(one, other, strict=True)):
        if not abs(ours - theirs) <= tolerance * abs(theirs):
            yield f"loss of step {step} is {ours!r}, not {theirs!r}"
            return
