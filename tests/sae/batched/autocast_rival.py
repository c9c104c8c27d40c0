"""Our steps with autocast held to sae_lens's, one by one, each from the state that ours began with.

Left to themselves, two trainings that round differently part: near-ties are kept otherwise, and
Adam makes whole steps of small gradients. So each step of ours is taken again by sae_lens's
trainer, from the member's weights, moments and counters (schedules are its own), and what is
compared is what one step makes of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.batched import training
from sae.batched.backend import BatchedBackend
from sae.batched.kernels.base import StepKernels
from sae.batched.outcome import Outcome
from sae.member import Member
from tests.sae.batched.parity_cases import NUM_STEPS, Life
from tests.sae.batched.rival import SOURCE, bare_trainer, fresh_member, whole_state

Gradients = dict[str, Tensor]
COUNTS = ("frequencies", "since_fired")
NUMBERS = ("lr", "lr_steps", "samples", "steps", "frequency_samples")


@dataclass(frozen=True)
class Step:
    """One step of one SAE."""

    name: str
    position: int
    before: Mapping[str, Tensor]
    """Everything that it could change, and did; see `whole_state`."""
    after: Mapping[str, Tensor]
    gradients: Gradients
    """By parameter, before they are clipped."""
    loss: float

    def moved(self, name: str) -> Tensor:
        """By how much a tensor was changed."""
        return self.after[name].double() - self.before[name].double()


def our_steps(lives: Mapping[str, Life], device: str = "cpu") -> list[Step]:
    """Members stepped together; each step of each."""
    backend = BatchedBackend(device)
    members: dict[str, Member] = {}
    steps = []
    for position in range(NUM_STEPS):
        due = [name for name, life in lives.items() if life.is_due(position)]
        members |= {name: fresh_member(lives[name], device) for name in due if name not in members}
        before = {name: whole_state(members[name].trainer) for name in due}
        with our_gradients() as gradients:
            batch_BD = SOURCE.batch_at(position)
            failures = backend.step({name: members[name] for name in due}, batch_BD, position)
        assert not failures, failures
        for name in due:
            member = members[name]
            after, loss = whole_state(member.trainer), member.losses.report()["loss"]
            steps.append(Step(name, position, before[name], after, gradients[member], loss))
    return steps


def their_steps(
    lives: Mapping[str, Life], taken: Sequence[Step], device: str = "cpu", *, exact: bool = False
) -> list[Step]:
    """The same steps by sae_lens's trainers.

    Args:
        exact: without autocast, to see how far its rounding takes a step.
    """
    trainers: dict[str, Any] = {}
    steps = []
    for step in taken:
        if step.name not in trainers:
            trainers[step.name] = bare_trainer(lives[step.name], device)
            if exact:
                trainers[step.name].autocast_if_enabled = nullcontext()
        trainer = trainers[step.name]
        bring_to(trainer, step.before)
        with their_gradients() as gradients:
            output = trainer.step(SOURCE.batch_at(step.position).to(trainer.sae.dtype))
        trainer.n_training_steps += 1
        names = [name for name, _ in trainer.sae.named_parameters()]
        found = dict(zip(names, gradients, strict=True))
        after = whole_state(trainer)
        loss = output.loss.item()
        steps.append(Step(step.name, step.position, step.before, after, found, loss))
    return steps


def bring_to(trainer: Any, state: Mapping[str, Tensor]) -> None:
    """Give a trainer a member's weights, moments and counters; schedules stay its own."""
    device = trainer.act_freq_scores.device
    saved = {name: value for name, value in state.items() if name.startswith("sae.")}
    trainer.sae.load_state_dict({name.removeprefix("sae."): saved[name] for name in saved})
    for name, parameter in trainer.sae.named_parameters():
        prefix = f"adam.{name}."
        for slot in (each for each in state if each.startswith(prefix)):
            # The number of steps stays on the host.
            where = "cpu" if slot.endswith(".step") else device
            trainer.optimizer.state[parameter][slot.removeprefix(prefix)] = (
                state[slot].clone().to(where)
            )
    trainer.act_freq_scores = state["frequencies"].clone().to(device)
    trainer.n_forward_passes_since_fired = state["since_fired"].clone().to(device)


@contextmanager
def our_gradients() -> Iterator[dict[Member, Gradients]]:
    """What members' steps were taken along, filled in as they are."""
    found: dict[Member, Gradients] = {}
    update = training.update

    def noted(member: Member, outcome: Outcome, kernels: StepKernels) -> None:
        found[member] = {
            name: (each.tensor.T if each.transposed else each.tensor).double().cpu()
            for name, each in outcome.gradients.items()
        }
        update(member, outcome, kernels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "update", noted)
        yield found


@contextmanager
def their_gradients() -> Iterator[list[Tensor]]:
    """What is clipped, one after the other."""
    found: list[Tensor] = []
    clip: Any = torch.nn.utils.clip_grad_norm_

    def noted(parameters: Any, max_norm: float) -> Any:
        kept = list(parameters)
        found.extend(parameter.grad.double().cpu() for parameter in kept)
        return clip(kept, max_norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
        yield found


@dataclass(frozen=True)
class Bounds:
    """How far apart steps may be; shares of norms, of numbers, of all firings."""

    firing: float
    """Of all that fires, over all steps. Gradients are compared where equal latents fire."""
    gradient: float
    """In any step: where dead latents are woken, what all latents pull may nearly cancel."""
    slope: float
    """Gradients along the other side's, mean over a member's steps: what is wrong and small."""
    update: float
    """Median over a member's steps: Adam makes much of the least gradients."""
    loss: float
    """In any step."""


def faults(ours: Sequence[Step], theirs: Sequence[Step], bounds: Bounds) -> list[str]:
    """Where steps are further apart than they may be, as readable lines."""
    found = _firing_faults(ours, theirs, bounds.firing)
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=True)]
    for one, other in pairs:
        where = f"{one.name} at {one.position}"
        numbers = [name for name in one.after if _is_exact(name)]
        found += [
            f"{where}: {name} is {one.after[name]}, not {other.after[name]}"
            for name in numbers
            if not torch.isclose(one.after[name], other.after[name], rtol=1e-9)
        ]
        if not abs(one.loss - other.loss) <= bounds.loss * abs(other.loss):
            found.append(f"{where}: loss is {one.loss}, not {other.loss}")
        if _fires_equally(one, other):
            found += [
                f"{where}: gradient of {name} is {far:.2g} away"
                for name, far in _distances(one.gradients, other.gradients).items()
                if not far <= bounds.gradient
            ]
    for member in dict.fromkeys(step.name for step in ours):
        own = [(one, other) for one, other in pairs if one.name == member]
        found += [f"{member}: {fault}" for fault in _faults_on_average(own, bounds)]
    return found


def distances(ours: Sequence[Step], theirs: Sequence[Step]) -> dict[str, float]:
    """By parameter: median over all steps of how far gradients are apart, in shares of theirs."""
    per_step = [_distances(a.gradients, b.gradients) for a, b in zip(ours, theirs, strict=True)]
    return {name: statistics.median(each[name] for each in per_step) for name in per_step[0]}


def _is_exact(name: str) -> bool:
    """Whether rounding has no part in a number: schedules, and all that counts steps or tokens."""
    return name in NUMBERS or name.startswith("coefficient.") or name.endswith(".step")


def _faults_on_average(pairs: Sequence[tuple[Step, Step]], bounds: Bounds) -> Iterator[str]:
    equal = [(one, other) for one, other in pairs if _fires_equally(one, other)]
    if not equal:
        yield "fires otherwise in every step"
        return
    for name in pairs[0][0].gradients:
        slopes = [_slope(one.gradients[name], other.gradients[name]) for one, other in equal]
        mean = statistics.fmean(slopes)
        if not abs(mean) <= bounds.slope:
            yield f"gradients of {name} are {mean:+.2g} too long"
    for name in (each for each in pairs[0][0].after if each.startswith("sae.")):
        far = statistics.median(_far(one.moved(name), other.moved(name)) for one, other in pairs)
        if not far <= bounds.update:
            yield f"{name} is moved {far:.2g} otherwise"


def _firing_faults(ours: Sequence[Step], theirs: Sequence[Step], share: float) -> list[str]:
    pairs = list(zip(ours, theirs, strict=True))
    apart = sum(float((a.moved(COUNTS[0]) - b.moved(COUNTS[0])).abs().sum()) for a, b in pairs)
    total = sum(float(other.moved(COUNTS[0]).sum()) for _, other in pairs)
    return [] if apart <= share * total else [f"{apart:g} of {total:g} firings are others"]


def _fires_equally(one: Step, other: Step) -> bool:
    return all(torch.equal(one.after[name], other.after[name]) for name in COUNTS)


def _distances(ours: Gradients, theirs: Gradients) -> dict[str, float]:
    assert ours.keys() == theirs.keys()
    return {name: _far(value, theirs[name]) for name, value in ours.items()}


def _far(ours: Tensor, theirs: Tensor) -> float:
    apart, size = float((ours - theirs).norm()), float(theirs.norm())
    return apart / size if size else (0.0 if apart == 0 else float("inf"))


def _slope(ours: Tensor, theirs: Tensor) -> float:
    square = float(theirs.square().sum())
    return float((ours * theirs).sum()) / square - 1 if square else 0.0
