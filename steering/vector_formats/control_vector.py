"""GGUF control vectors of llama.cpp and repeng. A torch module.

Metadata general.architecture = "controlvector", controlvector.model_hint (the model's type) and
controlvector.layer_count; one float32 tensor `direction.l` of one dimension for each layer.

Numbering: both tools mean by l what *leaves* block l, counted from 0. repeng reads
hidden_states[l + 1] and adds behind block l (extract.py, control.py); llama.cpp adds in
build_cvec(cur, l) behind the last sum of block l, and refuses a file with a direction.0
(common_control_vector_load_one), so block 0's output is out of reach there. Ours at resid_post.l is
l, at resid_pre.l it is l - 1. llama.cpp's own cvector-generator may number otherwise; a file does
not say who wrote it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steering.vector_formats.block_hooks import left_block
from steering.vectors import About, BadVectors, SteeringVectors

__all__ = ["read_control_vector", "write_control_vector"]

logger = logging.getLogger(__name__)

ARCHITECTURE = "controlvector"


def read_control_vector(path: Path) -> SteeringVectors:
    """Vectors of a GGUF file, at resid_post.l; residual norms are not known.

    Raises:
        BadVectors: no such file, or it is no control vector.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise BadVectors(f"{path} cannot be read as a GGUF file: {error}") from error
    architecture = _string(reader, "general.architecture")
    if architecture != ARCHITECTURE:
        raise BadVectors(
            f"{path} holds a GGUF of architecture {architecture!r}, not a control vector"
        )
    rows: dict[int, torch.Tensor] = {}
    for tensor in reader.tensors:
        what, _, layer = tensor.name.partition(".")
        if what != "direction" or not layer.isdigit():
            raise BadVectors(
                f"{path}: tensor {tensor.name!r} is no direction of a layer (direction.l)"
            )
        rows[int(layer)] = torch.from_numpy(np.array(tensor.data, dtype=np.float32)).flatten()
    if not rows or len({len(row) for row in rows.values()}) != 1:
        raise BadVectors(f"{path}: needs directions of one length; it has {len(rows)}")
    layers = sorted(rows)
    hooks = tuple(f"resid_post.{layer}" for layer in layers)
    about = About(
        formula="unknown",
        sign_rule="as in the file",
        details={
            "imported_from": "gguf",
            "model_type": _string(reader, f"{ARCHITECTURE}.model_hint") or "",
        },
    )
    vector_LD = torch.stack([rows[layer] for layer in layers])
    return SteeringVectors(vector_LD, hooks, torch.zeros(len(layers)), about)


def write_control_vector(
    path: Path, vectors: SteeringVectors, *, strength: float | None = None
) -> None:
    """Write a file that repeng reads, and llama.cpp too unless it has a layer 0.

    Args:
        strength: fraction of the residual norm that a coefficient of 1 is to mean there; vectors
            go out as their formula gave them if not given.

    Raises:
        BadVectors: a hook that is not the residual stream between blocks, or the embedding's.
    """
    import gguf

    rows = {left_block(hook): hook for hook in vectors.hooks}
    if len(rows) != len(vectors.hooks) or min(rows) < 0:
        raise BadVectors(
            f"hooks {', '.join(vectors.hooks)} are not outputs of blocks, each once; take others "
            "with .only(hook): resid_post.l, or resid_pre.l from 1 on"
        )
    if 0 in rows:
        logger.warning("%s has a direction.0: repeng reads it, llama.cpp refuses the file", path)
    model = vectors.about.model
    hint = model.family if model else str(vectors.about.details.get("model_type", ""))
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(rows))
    for layer, hook in sorted(rows.items()):
        raw_D = vectors.vector_LD[vectors.row(hook)]
        row_D = raw_D if strength is None else vectors.displacement(hook, strength)
        writer.add_tensor(f"direction.{layer}", row_D.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _string(reader: Any, key: str) -> str | None:
    field = reader.get_field(key)
    return None if field is None else str(bytes(field.parts[-1]), encoding="utf-8")
