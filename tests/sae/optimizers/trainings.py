"""One training by sae_lens's own trainer with an optimizer put into it, and by our members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.batched.backend import BatchedBackend
from sae.member import Member, lr_scheduler
from sae.step_backend import ReferenceBackend, StepBackend
from tests.sae.batched.parity_cases import NUM_STEPS, Life
from tests.sae.batched.planted import PlantedActivations
from tests.sae.batched.rival import SOURCE, Ran, bare_trainer, fresh_member
from tests.sae.synthetic_source import SyntheticSource

BACKENDS: dict[str, Callable[[], StepBackend]] = {
    "batched": BatchedBackend,
    "reference": ReferenceBackend,
}


def state_of(trainer: Any) -> dict[str, Tensor]:
    """Copies of the SAE's tensors and of the optimizer's, and the learning rate."""
    state = {f"sae.{name}": value for name, value in trainer.sae.state_dict().items()}
    for index, slots in trainer.optimizer.state_dict()["state"].items():
        state |= {f"{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    state["lr"] = torch.tensor(trainer.optimizer.param_groups[0]["lr"])
    return {name: value.detach().clone() for name, value in state.items()}


def run_bare(life: Life, make: Callable[[Any], torch.optim.Optimizer]) -> Ran:
    """sae_lens's trainer, with an optimizer of the SAE's parameters in the place of its own."""
    trainer: Any = bare_trainer(life)
    trainer.optimizer = make(trainer.sae.parameters())
    trainer.lr_scheduler = lr_scheduler(trainer.cfg, trainer.optimizer)
    ran = Ran({})
    for position in range(NUM_STEPS):
        output = trainer.step(SOURCE.batch_at(position).to(trainer.sae.dtype))
        trainer.n_training_steps += 1
        ran.losses.append(output.loss.item())
    ran.state = state_of(trainer)
    return ran


def run_member(life: Life, backend: StepBackend) -> Ran:
    """Ours, alone in its pack."""
    member, ran = fresh_member(life), Ran({})
    for position in range(NUM_STEPS):
        assert not backend.step({"m": member}, SOURCE.batch_at(position), position)
        ran.losses.append(member.losses.report()["loss"])
    ran.state = state_of(member.trainer)
    return ran


def fresh(config: ArchitectureConfig, source: SyntheticSource) -> Member:
    return Member.from_source(config, source, 60 * source.batch_tokens)


def trained(
    member: Member, source: SyntheticSource, backend: str, *, first: int, end: int
) -> Member:
    """The member after the source's batches from `first` up to `end`."""
    stepper = BACKENDS[backend]()
    for position in range(first, end):
        assert not stepper.step({"m": member}, source.batch_at(position)["layer"], position)
    return member


def unexplained_on_planted(config: ArchitectureConfig, num_steps: int = 300) -> float:
    """Share of held-out variance that an SAE leaves unexplained after a training.

    On a planted dictionary of 200 directions in 320 dimensions, 128 tokens a batch.
    """
    source = PlantedActivations(d_in=320, num_planted=200, num_active=6, batch_tokens=128)
    held_out_ND = torch.cat([source.batch_at(10**5 + n) for n in range(8)]).float()
    member = Member(
        config,
        hook="layer",
        d_in=source.d_in,
        total_tokens=num_steps * source.batch_tokens,
        batch_tokens=source.batch_tokens,
        scale=source.scale,
        mean_D=source.mean_D,
    )
    backend = BatchedBackend()
    for position in range(num_steps):
        assert not backend.step({"m": member}, source.batch_at(position).float(), position)
    x_ND = held_out_ND * member.scale
    with torch.no_grad():
        error_ND = x_ND - member.sae.decode(config.training_latents(member.sae, x_ND))
    return float(error_ND.square().sum() / (x_ND - x_ND.mean(0)).square().sum())
