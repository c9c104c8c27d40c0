"""What a stream is: a model, a text, hook points and an order. Plain data, no torch."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sae.sources.base import builtin_names

DEFAULT_BLOCK_BATCHES = 16
"""Batches in a shuffle block when `buffer_tokens` was not asked for."""


class ModelSpec(BaseModel):
    """Which language model, in which precision."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str | None = Field(default=None, min_length=1)
    """Hub id, local folder, or path of a .gguf file."""
    builtin: Literal["smollm2-135m"] | None = None
    """A model that a Python package carries: nothing is downloaded if it is installed."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of weights and activations; not given: float32 on CPU, bfloat16 on CUDA."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless the sweep says so."""
    compile: bool = False
    """Compile the model's blocks (torch.compile): faster after about a minute, and rounded
    differently in the last bits. Off, with a line in the output, where nothing can compile them."""
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    """How attention is computed; each rounds differently in the last bits. auto: sdpa wherever that
    is the model's own attention. flash needs flash-attn, a GPU for it and half precision. What
    cannot be had makes way, with a line in the output: flash for sdpa, sdpa for eager."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.name is None) == (self.builtin is None):
            raise ValueError(
                f"give exactly one of name and builtin; got name={self.name!r}, "
                f"builtin={self.builtin!r}"
            )
        if self.builtin is not None and self.revision is not None:
            raise ValueError(
                f"revision={self.revision!r} needs a hub model; a builtin has none, drop it"
            )
        return self

    @property
    def label(self) -> str:
        """The model's name as a person would say it."""
        return self.name or self.builtin or ""


class DataSpec(BaseModel):
    """Which text, and the length of the contexts it is packed into."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    dataset: str | None = Field(default=None, min_length=1)
    """A Hugging Face dataset, streamed."""
    files: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    """Globs of .txt/.md, .jsonl/.json (an object a line) or .parquet files, .gz too."""
    builtin: str | None = None
    """A text that is already on the machine: `python-docs`."""
    config: str | None = None
    """The dataset's configuration."""
    split: str = "train"
    """The dataset's split."""
    revision: str | None = None
    """The dataset's branch, tag or commit."""
    column: str = "text"
    """The column (or JSON key) that holds the text."""
    context: int = Field(default=128, ge=8)
    """Tokens in one context, the beginning-of-sequence token included."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [key for key in ("dataset", "files", "builtin") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of dataset, files and builtin; got "
                + (" and ".join(given) or "none")
            )
        if self.builtin is not None and self.builtin not in builtin_names():
            raise ValueError(
                f"builtin={self.builtin!r} is unknown; known: {', '.join(builtin_names())}"
            )
        if self.dataset is None:
            asked = [key for key in ("config", "revision") if getattr(self, key) is not None]
            asked += ["split"] if self.split != "train" else []
            if asked:
                raise ValueError(
                    f"{', '.join(asked)} only applies to `dataset:`, not to `{given[0]}:`; drop it"
                )
        return self


class CacheSpec(BaseModel):
    """Activations kept on the local disk for whoever trains on the same tokens again."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bytes: int = Field(gt=0)
    """Most that the folder may hold; what was not used for longest makes room."""
    dtype: Literal["bfloat16", "float8", "float32"] | None = None
    """Precision on disk, and of what every SAE trains on, the first one too. float8 is E4M3 with
    a scale a row. Not given: the model's own, so that results are those without a cache."""
    folder: str | None = Field(default=None, min_length=1)
    """On a local disk, shared by the packs of a machine; not given: below $SAEQ_CACHE."""


class StreamSpec(BaseModel):
    """Everything that the content of every batch depends on, and how to come by it fast."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: ModelSpec
    data: DataSpec
    hooks: tuple[str, ...] = Field(min_length=1)
    """Module paths of the model, or aliases such as `blocks.8.hook_resid_post`."""
    batch_tokens: int = Field(gt=0)
    """Activations in one batch."""
    seed: int = Field(default=0, ge=0)
    buffer_tokens: int | None = Field(default=None, gt=0)
    """Activations shuffled together; not given: 16 batches. Whole batches count."""
    held_out_tokens: int = Field(default=4096, gt=0)
    """Activations kept aside for evaluation, the same ones for every SAE."""
    lm_batch_contexts: int = Field(default=16, gt=0)
    """Contexts in one forward pass of the language model."""
    device: str = "auto"
    cache: CacheSpec | None = None
    overlap: bool = True
    """Compute the next shuffle block while SAEs train on this one; on CUDA alone, and as long as
    there is memory for a second block. Changes nothing in the batches."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        repeated = sorted({hook for hook in self.hooks if self.hooks.count(hook) > 1})
        if repeated:
            raise ValueError(f"hooks name {', '.join(repeated)} more than once; drop the repeats")
        if self.buffer_tokens is not None and self.buffer_tokens < self.batch_tokens:
            raise ValueError(
                f"buffer_tokens={self.buffer_tokens} is below batch_tokens={self.batch_tokens}; "
                "raise it or lower the batch"
            )
        return self

    @property
    def block_batches(self) -> int:
        """Batches in one shuffle block."""
        if self.buffer_tokens is None:
            return DEFAULT_BLOCK_BATCHES
        return self.buffer_tokens // self.batch_tokens

    @property
    def block_tokens(self) -> int:
        """Activations in one shuffle block: a whole number of batches."""
        return self.block_batches * self.batch_tokens

    @property
    def key(self) -> str:
        """16 hex digits; two sweeps whose streams have equal keys share a pack."""
        resolved = self.model_dump(mode="json", exclude={"overlap", "cache"})
        resolved["buffer_tokens"] = self.block_tokens
        if self.cache is not None:
            resolved["cache"] = {"dtype": self.cache.dtype}
        # Streams that were keyed before there was a choice keep their keys.
        if not self.model.compile:
            del resolved["model"]["compile"]
        if self.model.attention == "auto":
            del resolved["model"]["attention"]
        text = json.dumps(resolved, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
