"""A finished `style_scorer`: features of a text encoder into one number an attribute.

A torch module where it scores or is saved. Shape suffixes: N = texts, D = feature width,
A = attributes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.styles.catalogue import Attribute
from steering.styles.encoders import EncoderSpec, features_of
from steering.styles.errors import BadStyleData
from steering.styles.rows import Rows
from steering.styles.scorers.source import Scores, places_of

if TYPE_CHECKING:
    from torch import Tensor

    from steering.styles.head import Head

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ARTEFACT = "style_scorer"
FORMAT = 1


@dataclass(frozen=True)
class Regressor:
    """Scores of the artefact in a folder; outputs below 0 or above 1 are cut to that."""

    folder: Path

    def score(self, texts: Sequence[str], attributes: Sequence[str], cache: Path) -> Scores:
        model = load_regressor(self.folder)
        place_A = places_of(attributes, model.attributes, f"style scorer {self.folder}")
        labels = [str(row) for row in range(len(texts))]
        rows = Rows(groups=labels, items=labels, texts=list(texts))
        predicted_NA = model.predict(features_of(model.encoder, rows, cache))
        scores: Scores = predicted_NA.numpy()[:, place_A].clip(0.0, 1.0).astype(np.float32)
        return scores


@dataclass
class RegressorModel:
    """The weights and what they were made for."""

    head: Head
    encoder: EncoderSpec
    attributes: tuple[Attribute, ...]
    is_probability: bool
    """Whether outputs, scaled and shifted, are logits of probabilities; else target values."""
    mean_D: Tensor
    deviation_D: Tensor
    """What features are shifted and scaled by before the head."""
    target_mean_A: Tensor
    target_deviation_A: Tensor
    """What outputs are shifted and scaled by."""
    config: dict[str, Any]
    """All else that was written beside the weights."""

    def predict(self, features: np.ndarray[Any, Any] | Tensor) -> Tensor:
        """Target values [N, A] of features [N, D]. Raises BadStyleData for another width."""
        import torch

        x_ND = torch.as_tensor(features, dtype=torch.float32)
        if x_ND.ndim != 2 or x_ND.shape[1] != self.head.widths[0]:
            raise BadStyleData(
                f"features must have the shape [rows, {self.head.widths[0]}]; got "
                f"{list(x_ND.shape)}: the scorer was trained on another encoder"
            )
        self.head.eval()
        with torch.no_grad():
            parts = torch.split((x_ND - self.mean_D) / self.deviation_D, 8192)
            out_NA = torch.cat([self.head(part_ND) for part_ND in parts])
        out_NA = out_NA * self.target_deviation_A + self.target_mean_A
        return torch.sigmoid(out_NA) if self.is_probability else out_NA


def save_regressor(folder: Path, model: RegressorModel) -> None:
    """Write an artefact into an empty folder: safetensors and JSON."""
    from safetensors.torch import save_file

    head = model.head
    tensors = {f"head.{name}": value.detach() for name, value in head.state_dict().items()}
    tensors |= {"mean": model.mean_D, "deviation": model.deviation_D}
    tensors |= {"target_mean": model.target_mean_A, "target_deviation": model.target_deviation_A}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    about = {
        **model.config,
        "artefact": ARTEFACT,
        "format": FORMAT,
        "widths": list(head.widths),
        "encoder": model.encoder.model_dump(mode="json"),
        "attributes": [one.model_dump() for one in model.attributes],
        "is_probability": model.is_probability,
    }
    (folder / CONFIG).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def load_regressor(folder: Path) -> RegressorModel:
    """Read an artefact. Raises BadStyleData for a folder that holds none."""
    from safetensors.torch import load_file

    from steering.styles.head import Head

    try:
        config = json.loads((folder / CONFIG).read_text())
        if config.get("artefact") != ARTEFACT:
            raise ValueError(f"its config.json is not that of a {ARTEFACT}")
        tensors = load_file(folder / WEIGHTS)
        head = Head(config["widths"], normalize=False, seed=0)
        weights = {n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")}
        head.load_state_dict(weights)
        return RegressorModel(
            head.eval(),
            EncoderSpec.model_validate(config["encoder"]),
            tuple(Attribute.model_validate(one) for one in config["attributes"]),
            bool(config["is_probability"]),
            tensors["mean"],
            tensors["deviation"],
            tensors["target_mean"],
            tensors["target_deviation"],
            config,
        )
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadStyleData(
            f"{folder} holds no style scorer ({type(error).__name__}: {error}); name the folder of "
            f"a finished {ARTEFACT}, with {CONFIG} and {WEIGHTS}"
        ) from error
