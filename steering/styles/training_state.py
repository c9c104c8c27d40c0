"""What a training needs to go on from: weights, optimizer, how far it is. A torch module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

STATE, PROGRESS = "state.safetensors", "progress.json"


def save_training(
    folder: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, int],
) -> None:
    """Everything that the next step depends on, into an empty folder.

    Args:
        parts: name without a dot -> tensors by name, such as a module's state_dict.
    """
    tensors = {
        f"{part}.{name}": value for part, named in parts.items() for name, value in named.items()
    }
    for place, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{place}.{name}"] = torch.as_tensor(value)
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(contiguous, folder / STATE)
    (folder / PROGRESS).write_text(json.dumps(dict(progress)))


def load_training(
    folder: Path, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
    """Read what `save_training` wrote, and put its moments into an optimizer of the same shapes.

    Returns:
        The parts, and the progress.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / STATE).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in parts.pop("optimizer", {}).items():
        place, _, key = name.partition(".")
        state["state"].setdefault(int(place), {})[key] = tensor
    optimizer.load_state_dict(state)
    return parts, json.loads((folder / PROGRESS).read_text())
