"""Bringing a member to a state that was saved: safetensors and JSON, so that no code is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.member import Member, lr_scheduler
from sae.member_snapshot import FORMAT as FORMAT
from sae.member_snapshot import STATE_FILE as STATE_FILE
from sae.member_snapshot import TENSORS_FILE as TENSORS_FILE
from sae.member_snapshot import MemberSnapshot, snapshot

SCALE_TOLERANCE = 1e-3
"""Relative; the scale is a mean over activations, which differ a little between devices."""


class BadCheckpoint(ValueError):
    """A folder that a member cannot be resumed from.

    Args:
        folder: where it is.
        reason: what is wrong with it.
    """

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder, self.reason = folder, reason

    def __str__(self) -> str:
        return f"checkpoint {self.folder} cannot be resumed from: {self.reason}"


def save_member(member: Member, folder: Path) -> int:
    """Write a member's state into a folder; `state.json` comes last and makes it complete.

    The caller sees to it that nobody steps the member meanwhile; `sae.member_snapshot` has the
    two halves, of which only the first needs that.

    Returns:
        The tokens it stands for.
    """
    return snapshot(member).write(folder)


def load_member(member: Member, folder: Path) -> int:
    """Bring a fresh member of the same configuration to a saved state.

    The state is everything: weights, optimizer moments, schedules, counters, losses, segments.
    There is no random generator in it, since a member draws nothing after its initial weights:
    its batches are a function of seed and position.

    A member that is laid out over another `total_tokens` than the saved one (its sweep was
    extended) keeps all of that too; only its learning rate goes on along the schedule of the new
    length, at the step where it is. A decay that had begun is so taken back, and begins again at
    the new end. `member.lengths` records the change.

    Returns:
        The tokens it stands for.

    Raises:
        BadCheckpoint: the folder is incomplete, truncated, or of another member or stream.
    """
    state = _read_numbers(folder)
    _check_same_member(member, state, folder)
    tensors = _read_tensors(folder, state["tensor_bytes"])
    if sorted(tensors) != state["tensor_names"]:
        raise BadCheckpoint(str(folder), f"{TENSORS_FILE} is of another {STATE_FILE}")
    try:
        restore_member(member, MemberSnapshot(tensors, state))
    except RuntimeError as error:
        raise BadCheckpoint(str(folder), f"its tensors do not fit: {error}") from error
    return member.tokens


def restore_member(member: Member, saved: MemberSnapshot) -> None:
    """Bring a fresh member to a snapshot of one of the same configuration; see `load_member`."""
    state = {"lengths": [(0, saved.numbers["total_tokens"])], **saved.numbers}
    if state["total_tokens"] != member.total_tokens:
        state |= schedule_at(member, state["steps"], state["optimizer_groups"])
        state["lengths"] = [*state["lengths"], (state["steps"], member.total_tokens)]
    _restore_tensors(member, saved.tensors, state)
    _restore_numbers(member, state)


def schedule_at(member: Member, steps: int, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a member's own schedule stands after so many steps.

    Args:
        groups: the optimizer's groups as saved, whose learning rate is replaced.

    Returns:
        `lr_scheduler` and `optimizer_groups`, as a state holds them.
    """
    settings = member.trainer.cfg
    stand_in = torch.optim.SGD([torch.zeros(())], lr=settings.lr)
    scheduler = lr_scheduler(settings, stand_in)
    for _ in range(steps):
        stand_in.step()
        scheduler.step()
    lr = stand_in.param_groups[0]["lr"]
    return {
        "lr_scheduler": scheduler.state_dict(),
        "optimizer_groups": [{**group, "lr": lr} for group in groups],
    }


def _read_numbers(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    if not path.is_file():
        raise BadCheckpoint(str(folder), f"it is incomplete, {STATE_FILE} is missing")
    try:
        state = json.loads(path.read_text(encoding="ascii"))
    except ValueError as error:
        raise BadCheckpoint(str(folder), f"{STATE_FILE} is damaged: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadCheckpoint(str(folder), f"{STATE_FILE} is not of format {FORMAT}")
    missing = sorted(_REQUIRED - set(state))
    if missing:
        raise BadCheckpoint(str(folder), f"{STATE_FILE} lacks {', '.join(missing)}")
    return state


_REQUIRED = {
    "config",
    "hook",
    "d_in",
    "total_tokens",
    "batch_tokens",
    "scale",
    "tokens",
    "steps",
    "n_frac_active_samples",
    "optimizer_groups",
    "lr_scheduler",
    "coefficient_schedulers",
    "losses",
    "segments",
    "step_seconds",
    "tensor_names",
    "tensor_bytes",
}


def _check_same_member(member: Member, state: Mapping[str, Any], folder: Path) -> None:
    config = member.config.model_dump(mode="json")
    # What was saved before there was a choice is what is chosen by default.
    fields = type(member.config).model_fields
    defaults = {name: each.default for name, each in fields.items() if not each.is_required()}
    saved = {**defaults, **state["config"]}
    names = sorted(set(config) | set(saved))
    different = [
        f"{name}={saved.get(name)!r} there, {config.get(name)!r} here"
        for name in names
        if saved.get(name) != config.get(name)
    ]
    different += [
        f"{name}={state[name]!r} there, {getattr(member, name)!r} here"
        for name in ("hook", "d_in", "batch_tokens")
        if state[name] != getattr(member, name)
    ]
    if state["tokens"] > member.total_tokens:
        different.append(f"tokens={state['tokens']} there, total {member.total_tokens} here")
    if abs(state["scale"] - member.scale) > SCALE_TOLERANCE * member.scale:
        different.append(f"scale={state['scale']:g} there, {member.scale:g} here")
    if different:
        raise BadCheckpoint(str(folder), f"it is of another member: {'; '.join(different)}")


def _read_tensors(folder: Path, num_bytes: int) -> dict[str, Tensor]:
    path = folder / TENSORS_FILE
    if not path.is_file():
        raise BadCheckpoint(str(folder), f"it is incomplete, {TENSORS_FILE} is missing")
    if path.stat().st_size != num_bytes:
        raise BadCheckpoint(
            str(folder),
            f"{TENSORS_FILE} is truncated: {path.stat().st_size} bytes instead of {num_bytes}",
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise BadCheckpoint(str(folder), f"{TENSORS_FILE} is damaged: {error}") from error
    return tensors


def _restore_tensors(
    member: Member, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    trainer, device = member.trainer, member.device
    sae_names = [name for name in tensors if name.startswith("sae.")]
    trainer.sae.load_state_dict({name.removeprefix("sae."): tensors[name] for name in sae_names})
    slots: dict[int, dict[str, Tensor]] = {}
    for name in tensors:
        if name.startswith("adam."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = tensors[name]
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in state["optimizer_groups"]
    ]
    trainer.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    trainer.act_freq_scores = tensors["act_freq_scores"].to(device)
    trainer.n_forward_passes_since_fired = tensors["n_forward_passes_since_fired"].to(device)
    member.losses.sum = tensors["loss_sum"].to(device)
    member.losses.max = tensors["loss_max"].to(device)


def _restore_numbers(member: Member, state: Mapping[str, Any]) -> None:
    trainer = member.trainer
    trainer.lr_scheduler.load_state_dict(state["lr_scheduler"])
    for name, scheduler in trainer.coefficient_schedulers.items():
        scheduler.load_state_dict(state["coefficient_schedulers"][name])
    trainer.n_training_samples = state["tokens"]
    trainer.n_training_steps = state["steps"]
    trainer.n_frac_active_samples = state["n_frac_active_samples"]
    if trainer.activation_scaler.scaling_factor is not None:
        # The weights were trained against the saved scale, whatever this device would measure.
        trainer.activation_scaler.scaling_factor = state["scale"]
    member.losses.num_steps = state["losses"]["num_steps"]
    member.losses.last = {name: float(text) for name, text in state["losses"]["last"].items()}
    member.steppers = list(state.get("steppers", []))
    member.segments = [(first, end) for first, end in state["segments"]]
    member.lengths = [(step, total) for step, total in state["lengths"]]
    member.earlier_step_seconds = state["step_seconds"]
