"""A member's whole state in a folder: safetensors and JSON, so that reading it runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.member import Member
from sae.versions import versions

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
FORMAT = 1

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

    Returns:
        The tokens it stands for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors_path = folder / TENSORS_FILE
    tensors = _tensors(member)
    save_file(tensors, tensors_path)
    state = {
        **_numbers(member),
        "tensor_names": sorted(tensors),
        "tensor_bytes": tensors_path.stat().st_size,
    }
    unfinished = folder / f"{STATE_FILE}.part"
    unfinished.write_text(json.dumps(state, indent=1), encoding="ascii")
    _sync(tensors_path)
    _sync(unfinished)
    os.replace(unfinished, folder / STATE_FILE)
    return member.tokens


def load_member(member: Member, folder: Path) -> int:
    """Bring a fresh member of the same configuration to a saved state.

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
        _restore_tensors(member, tensors, state)
    except RuntimeError as error:
        raise BadCheckpoint(str(folder), f"its tensors do not fit: {error}") from error
    _restore_numbers(member, state)
    return member.tokens


def _tensors(member: Member) -> dict[str, Tensor]:
    trainer = member.trainer
    tensors = {f"sae.{name}": tensor for name, tensor in trainer.sae.state_dict().items()}
    for index, slots in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in slots.items()}
    tensors["act_freq_scores"] = trainer.act_freq_scores
    tensors["n_forward_passes_since_fired"] = trainer.n_forward_passes_since_fired
    tensors["loss_sum"] = member.losses.sum
    tensors["loss_max"] = member.losses.max
    # Copied, since safetensors refuses tensors that share memory or are not contiguous.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _numbers(member: Member) -> dict[str, Any]:
    trainer = member.trainer
    return {
        "format": FORMAT,
        "config": member.config.model_dump(mode="json"),
        "hook": member.hook,
        "d_in": member.d_in,
        "total_tokens": member.total_tokens,
        "batch_tokens": member.batch_tokens,
        "scale": member.scale,
        "tokens": member.tokens,
        "steps": member.steps,
        "n_frac_active_samples": trainer.n_frac_active_samples,
        "optimizer_groups": trainer.optimizer.state_dict()["param_groups"],
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficient_schedulers": {
            name: scheduler.state_dict()
            for name, scheduler in trainer.coefficient_schedulers.items()
        },
        "losses": {
            "num_steps": member.losses.num_steps,
            # As text: a diverged member's NaN is no JSON.
            "last": {name: repr(value) for name, value in member.losses.last.items()},
        },
        "segments": member.segments,
        "step_seconds": member.step_seconds,
        "versions": versions(),
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
    saved = state["config"]
    names = sorted(set(config) | set(saved))
    different = [
        f"{name}={saved.get(name)!r} there, {config.get(name)!r} here"
        for name in names
        if saved.get(name) != config.get(name)
    ]
    different += [
        f"{name}={state[name]!r} there, {getattr(member, name)!r} here"
        for name in ("hook", "d_in", "total_tokens", "batch_tokens")
        if state[name] != getattr(member, name)
    ]
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
    groups = [{**group, "betas": tuple(group["betas"])} for group in state["optimizer_groups"]]
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
    member.segments = [(first, end) for first, end in state["segments"]]
    member.earlier_step_seconds = state["step_seconds"]


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
