"""What an encoder takes in memory, from formulas and files' headers: no torch, no network."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steering.styles.encoder_files import MINILM
from steering.styles.encoders import EncoderSpec

__all__ = ["EncoderBytes", "EncoderShape", "encoder_bytes", "encoder_shape"]

BYTES_BY_DTYPE = {"float32": 4, "bfloat16": 2}
RUNTIME_BYTES = 500 * 2**20
"""A process with torch and transformers imported."""
TRAINED_BYTES = 12
"""Of a number that is trained, beside its own: gradient and AdamW's two moments in float32."""
TOKEN_BYTES_PER_WIDTH = 68
"""Kept for the backward pass by one block for a token and a dimension: 34 in 16 bits, twice that
in 32 (Korthikanti et al. 2022, arXiv 2205.05198, equation 2), without attention scores, which
sdpa and flash do not keep."""
FORWARD_BUFFERS = 24
"""Numbers alive in a forward pass alone, for a token and a dimension."""


@dataclass(frozen=True)
class EncoderShape:
    """Sizes from which memory follows."""

    width: int
    num_layers: int
    num_parameters: int


@dataclass(frozen=True)
class EncoderBytes:
    """Bytes for each trial, and for whoever encodes the table once."""

    trial_bytes: int
    once_bytes: int
    width: int
    """Of the features; 0 where they are given."""


NONE = EncoderBytes(0, 0, 0)
_BASE = EncoderShape(768, 12, 110_000_000)
"""BERT base: for a name that says nothing of its size."""
_KNOWN = {
    "minilm-l6": EncoderShape(384, 6, 22_700_000),
    "minilm-l12": EncoderShape(384, 12, 33_400_000),
    "roberta-large": EncoderShape(1024, 24, 355_000_000),
    "bert-large": EncoderShape(1024, 24, 335_000_000),
    "e5-large": EncoderShape(1024, 24, 335_000_000),
    "bge-large": EncoderShape(1024, 24, 335_000_000),
    "deberta-v3-large": EncoderShape(1024, 24, 435_000_000),
    "deberta-v3-base": EncoderShape(768, 12, 184_000_000),
    "deberta-v3-small": EncoderShape(768, 6, 141_000_000),
    "modernbert-large": EncoderShape(1024, 28, 395_000_000),
    "modernbert-base": EncoderShape(768, 22, 149_000_000),
}
"""From each model's card."""
_SIZE_IN_NAME = re.compile(r"(?<![a-z0-9])(\d+(?:\.\d+)?)(m|b)(?![a-z0-9])", re.IGNORECASE)


def encoder_bytes(spec: EncoderSpec, *, lora_r: int = 8) -> EncoderBytes:
    """What trials of such an encoder need; nothing for vectors that are given."""
    if spec.features:
        return NONE
    shape = encoder_shape(spec.hf or spec.sentence_transformer or MINILM)
    weights = shape.num_parameters * BYTES_BY_DTYPE[spec.dtype]
    forward = FORWARD_BUFFERS * spec.batch_tokens * shape.width * 4
    once = RUNTIME_BYTES + weights + forward
    if spec.tune == "frozen":
        return EncoderBytes(0, once, shape.width)
    trained = shape.num_parameters
    if spec.tune == "lora":
        # Two matrices of r rows at each of about six layers of a block, four of them square.
        trained = min(trained, 2 * 9 * lora_r * shape.width * shape.num_layers)
    kept = TOKEN_BYTES_PER_WIDTH * spec.batch_tokens * shape.width
    layers = 1 if spec.gradient_checkpointing else shape.num_layers
    inputs = 4 * spec.batch_tokens * shape.width * shape.num_layers
    activations = kept * layers + (inputs if spec.gradient_checkpointing else 0)
    own = RUNTIME_BYTES + weights + TRAINED_BYTES * trained + max(activations, forward)
    return EncoderBytes(own, once, shape.width)


def encoder_shape(name: str) -> EncoderShape:
    """Sizes from a folder's config.json and weight files, else from what its name says."""
    root = Path(name).expanduser()
    for folder in (root, root / "0_Transformer"):
        if (folder / "config.json").is_file():
            return _by_files(json.loads((folder / "config.json").read_text()), folder)
    lowered = name.lower()
    known = next((shape for name, shape in _KNOWN.items() if name in lowered), None)
    if known is not None:
        return known
    found = _SIZE_IN_NAME.search(lowered)
    if found is None:
        return _BASE
    parameters = float(found[1]) * (1e9 if found[2].lower() == "b" else 1e6)
    # 12 * layers * width^2 weights (Kaplan et al. 2020), about a layer for each 64 of width.
    width = max(64, 64 * round((parameters * 64 / 12) ** (1 / 3) / 64))
    return EncoderShape(width, max(1, width // 64), int(parameters))


def _by_files(config: dict[str, Any], folder: Path) -> EncoderShape:
    text = config.get("text_config") or config
    width = _first(text, "hidden_size", "d_model", "n_embd", "dim", default=_BASE.width)
    layers = _first(text, "num_hidden_layers", "num_layers", "n_layer", "n_layers", default=12)
    files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    size = 2 if dtype in ("bfloat16", "float16") else 4
    parameters = sum(file.stat().st_size for file in files) // size
    return EncoderShape(width, layers, parameters or 12 * layers * width * width)


def _first(config: dict[str, Any], *names: str, default: int) -> int:
    return next((int(config[name]) for name in names if config.get(name)), default)
