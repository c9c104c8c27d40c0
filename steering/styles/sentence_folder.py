"""A style embedding as a sentence-transformers model: a folder of that library's own modules.

No code of this project is needed to load it, nor is the library to write it. Shift, scale and the
head's layers become Dense modules; an encoder that was trained lies in the folder, one that was
not is named by an adapter that adds nothing, or copied. A torch module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from steering.styles.centroids import Distance
from steering.styles.head import Head
from steering.styles.lora import linear_names
from steering.styles.text_encoder import TextEncoder

__all__ = ["FOLDER", "Kept", "write_sentence_folder"]

FOLDER = "sentence_transformers"
"""Its place in an artefact."""

Kept = Literal["weights", "adapter", "name"]
"""Of the encoder: all weights, LoRA's additions, or where it is."""

_POOLING = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}
_MODULES = "sentence_transformers.models"
"""Where every version of the library finds its modules by name."""


def write_sentence_folder(
    folder: Path,
    encoder: TextEncoder,
    head: Head,
    mean_D: Tensor,
    deviation_D: Tensor,
    distance: Distance,
    kept: Kept,
) -> None:
    """Write into an empty folder what `SentenceTransformer(folder)` loads."""
    _write_encoder(folder, encoder, kept)
    encoder.tokenizer.save_pretrained(folder)
    _json(folder / "sentence_bert_config.json", _limits(encoder))
    modules = [("Transformer", "")]
    for name, settings, tensors in _stages(encoder, head, mean_D, deviation_D):
        path = f"{len(modules)}_{name}"
        modules.append((name, path))
        (folder / path).mkdir()
        _json(folder / path / "config.json", settings)
        if tensors:
            save_file(tensors, folder / path / "model.safetensors")
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"{_MODULES}.{name}"}
        for n, (name, path) in enumerate(modules)
    ]
    _json(folder / "modules.json", listed)
    about: dict[str, Any] = {"similarity_fn_name": distance}
    if encoder.prefix:
        about |= {"prompts": {"style": encoder.prefix}, "default_prompt_name": "style"}
    _json(folder / "config_sentence_transformers.json", about)


def _limits(encoder: TextEncoder) -> dict[str, Any]:
    return {"max_seq_length": encoder.max_tokens, "do_lower_case": False}


def _stages(
    encoder: TextEncoder, head: Head, mean_D: Tensor, deviation_D: Tensor
) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
    """Class, settings and tensors of what comes after the transformer."""
    chosen = _POOLING[encoder.files.pooling]
    modes = {key: key == chosen for key in _POOLING.values()}
    yield "Pooling", {"word_embedding_dimension": encoder.width, **modes}, {}
    if encoder.files.normalize:
        yield "Normalize", {}, {}
    layers: list[Any] = list(head.layers)
    for number, layer in enumerate(layers):
        weight, bias = layer.weight.detach().cpu().double(), layer.bias.detach().cpu().double()
        if number == 0:
            mean, deviation = mean_D.double().cpu(), deviation_D.double().cpu()
            weight = weight / deviation
            bias = bias - weight @ mean
        is_last = number == len(layers) - 1
        act = "torch.nn.modules.linear.Identity" if is_last else "torch.nn.modules.activation.ReLU"
        yield (
            "Dense",
            {
                "in_features": weight.shape[1],
                "out_features": weight.shape[0],
                "bias": True,
                "activation_function": act,
            },
            {"linear.weight": weight.float().contiguous(), "linear.bias": bias.float()},
        )
    if head.normalize:
        yield "Normalize", {}, {}


def _write_encoder(folder: Path, encoder: TextEncoder, kept: Kept) -> None:
    linear = linear_names(encoder.model) if kept == "name" else []
    if kept == "name" and linear:
        _write_empty_adapter(folder, encoder, linear[0])
        return
    encoder.model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's, which says nothing
    file = folder / "adapter_config.json"
    if file.is_file():
        says = json.loads(file.read_text())
        _json(file, {**says, **_base(encoder)})


def _base(encoder: TextEncoder) -> dict[str, Any]:
    return {
        "base_model_name_or_path": encoder.files.place,
        "revision": encoder.files.revision,
    }


def _write_empty_adapter(folder: Path, encoder: TextEncoder, module: str) -> None:
    """LoRA of rank 1 with B = 0 at one layer: the encoder as it is, by a folder of a few KiB."""
    layer = encoder.model.get_submodule(module)
    is_transposed = type(layer).__name__ == "Conv1D"
    d_in, d_out = layer.weight.shape if is_transposed else reversed(layer.weight.shape)
    start = f"base_model.model.{module}"
    tensors = {
        f"{start}.lora_A.weight": torch.zeros(1, d_in),
        f"{start}.lora_B.weight": torch.zeros(d_out, 1),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "inference_mode": True,
        "r": 1,
        "lora_alpha": 1,
        "target_modules": [module],
        "fan_in_fan_out": is_transposed,
        **_base(encoder),
    }
    _json(folder / "adapter_config.json", settings)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
