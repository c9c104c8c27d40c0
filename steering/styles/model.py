"""A finished style embedding: head, centroids, and what they were made from. A torch module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steering.styles.centroids import Distance, nearest
from steering.styles.encoder_files import EncoderFiles
from steering.styles.encoders import EncoderSpec
from steering.styles.errors import BadStyleData
from steering.styles.head import Head
from steering.styles.sentence_folder import FOLDER, Kept, write_sentence_folder
from steering.styles.text_encoder import TextEncoder, load_encoder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1


@dataclass
class StyleModel:
    """Embeds texts or features and names the nearest group."""

    head: Head
    groups: tuple[str, ...]
    centroid_GE: Tensor
    distance: Distance
    mean_D: Tensor
    deviation_D: Tensor
    """What features are shifted and scaled by before the head."""
    config: dict[str, Any]
    """Recipe, encoder, catalogue hash, metrics: all that was written beside the weights."""
    encoder: TextEncoder | None = None
    """What reads texts; loaded when it is first needed."""
    folder: Path | None = None
    """Where it was loaded from."""

    @property
    def encoder_spec(self) -> EncoderSpec:
        """What the features are: given vectors, or an encoder's outputs."""
        return EncoderSpec.model_validate(self.config.get("encoder", {"features": True}))

    def text_encoder(self) -> TextEncoder:
        """The encoder, as it was trained. Raises BadStyleData where there is none."""
        if self.encoder is None:
            self.encoder = _load_encoder(self)
        return self.encoder

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [N, E] of texts.

        Raises:
            BadStyleData: the model embeds given vectors, its encoder cannot be loaded, or a text
                has no token.
        """
        if not texts:
            return torch.empty((0, self.head.widths[-1]))
        return self.embed(self.text_encoder().encode(texts))

    def nearest_group_of_texts(self, texts: Sequence[str]) -> list[str]:
        """The group whose centroid is nearest, for each text. Raises BadStyleData."""
        found_N = nearest(self.embed_texts(texts), self.centroid_GE, self.distance)
        return [self.groups[group] for group in found_N.tolist()]

    def write_sentence_transformer(self, folder: str | Path) -> None:
        """Write what `SentenceTransformer(folder)` loads, its encoder's weights included.

        Args:
            folder: made if it is not there.

        Raises:
            BadStyleData: the folder is not empty, or the model reads no texts.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise BadStyleData(f"{place} is not empty; name a new folder")
        encoder = self.text_encoder()
        if self.encoder_spec.tune == "lora":
            merged = encoder.model.merge_and_unload()
            encoder = TextEncoder(
                encoder.files, merged, encoder.tokenizer, encoder.max_tokens, encoder.prefix
            )
            self.encoder = None  # merging changes it
        self._write_sentence_folder(place, encoder, "weights")

    def _write_sentence_folder(self, folder: Path, encoder: TextEncoder, kept: Kept) -> None:
        write_sentence_folder(
            folder, encoder, self.head, self.mean_D, self.deviation_D, self.distance, kept
        )

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
    """Write an artefact into an empty folder: safetensors and JSON.

    With an encoder that is loaded, also the folder for sentence-transformers: with its weights if
    they were trained or are to be copied, with LoRA's additions, else with its name.
    """
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
    if model.encoder is not None:
        files = model.encoder.files
        about["pooled"] = {"pooling": files.pooling, "normalize": files.normalize}
    (folder / CONFIG).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    if model.encoder is not None:
        (folder / FOLDER).mkdir()
        kept: dict[str, Kept] = {"whole": "weights", "lora": "adapter"}
        spec = model.encoder_spec
        frozen: Kept = "weights" if spec.copy_encoder else "name"
        model._write_sentence_folder(folder / FOLDER, model.encoder, kept.get(spec.tune, frozen))


def _load_encoder(model: StyleModel) -> TextEncoder:
    spec, folder = model.encoder_spec, model.folder
    if spec.features:
        raise BadStyleData(
            "this embedding was trained on given vectors and reads no texts; compute their style "
            "vectors with the same scorer, and use embed(features)"
        )
    own = None if folder is None else folder / FOLDER
    if own is None or (spec.tune == "frozen" and not spec.copy_encoder):
        return load_encoder(spec)
    if spec.tune != "lora":
        return load_encoder(spec, EncoderFiles(str(own), **model.config["pooled"]))
    encoder = load_encoder(spec)
    try:
        from peft import PeftModel
    except ImportError as error:
        raise BadStyleData(
            "this encoder was tuned with LoRA; reading it needs peft: pip install 'saeq[styles]'"
        ) from error
    encoder.model = PeftModel.from_pretrained(encoder.model, str(own)).eval()
    return encoder


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
            folder=folder,
        )
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadStyleData(
            f"{folder} holds no style embedding ({type(error).__name__}: {error}); name the folder "
            f"with {CONFIG} and {WEIGHTS}"
        ) from error
