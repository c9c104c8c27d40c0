"""A finished style embedding: head, centroids, and what they were made from. A torch module."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steering.styles.centroids import Distance, nearest
from steering.styles.errors import BadStyleData
from steering.styles.head import Head

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1


@dataclass
class StyleModel:
    """Embeds features and names the nearest group."""

    head: Head
    groups: tuple[str, ...]
    centroid_GE: Tensor
    distance: Distance
    mean_D: Tensor
    deviation_D: Tensor
    """What features are shifted and scaled by before the head."""
    config: dict[str, Any]
    """Recipe, encoder, catalogue hash, metrics: all that was written beside the weights."""

    @torch.no_grad()
    def embed(self, features: np.ndarray[Any, Any] | Tensor) -> Tensor:
        """Embeddings [N, E] of features [N, D]. Raises BadStyleData for another width."""
        x_ND = torch.as_tensor(features, dtype=torch.float32)
        if x_ND.ndim != 2 or x_ND.shape[1] != self.head.widths[0]:
            raise BadStyleData(
                f"features must have the shape [rows, {self.head.widths[0]}]; got "
                f"{list(x_ND.shape)}"
            )
        self.head.eval()
        parts = torch.split((x_ND - self.mean_D) / self.deviation_D, 8192)
        return torch.cat([self.head(part_ND) for part_ND in parts])

    def nearest_group(self, features: np.ndarray[Any, Any] | Tensor) -> list[str]:
        """The group whose centroid is nearest, for each row."""
        found_N = nearest(self.embed(features), self.centroid_GE, self.distance)
        return [self.groups[group] for group in found_N.tolist()]


def save(folder: Path, model: StyleModel) -> None:
    """Write an artefact into an empty folder: safetensors and JSON."""
    head = model.head
    tensors = {f"head.{name}": value.detach() for name, value in head.state_dict().items()}
    tensors |= {"centroids": model.centroid_GE, "mean": model.mean_D}
    tensors["deviation"] = model.deviation_D
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    about = {
        **model.config,
        "format": FORMAT,
        "widths": list(head.widths),
        "normalize": head.normalize,
        "groups": list(model.groups),
        "distance": model.distance,
    }
    (folder / CONFIG).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def load(folder: Path) -> StyleModel:
    """Read an artefact. Raises BadStyleData for a folder that holds none."""
    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
        head = Head(config["widths"], normalize=config["normalize"], seed=0)
        weights = {n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")}
        head.load_state_dict(weights)
        return StyleModel(
            head.eval(),
            tuple(config["groups"]),
            tensors["centroids"],
            config["distance"],
            tensors["mean"],
            tensors["deviation"],
            config,
        )
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadStyleData(
            f"{folder} holds no style embedding ({type(error).__name__}: {error}); name the folder "
            f"with {CONFIG} and {WEIGHTS}"
        ) from error
