"""What the activations of given tokens depend on, and the cache of those. A torch module."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import torch

from sae.activation_cache.blocks import BlockCache
from sae.activation_cache.stored import storage_dtype
from sae.bounded_folder import BoundedFolder
from sae.language_model import LanguageModel, cache_dir
from sae.stream_spec import StreamSpec


def pass_record(spec: StreamSpec, model: LanguageModel) -> dict[str, Any]:
    """Say as JSON what a forward pass is done with, for the record of an artefact."""
    return {
        "model": {
            "name": spec.model.label,
            "revision": model.files.revision,
            "weights_sha256": model.files.weights_sha256(),
            "dtype": str(model.dtype).removeprefix("torch."),
            "family": model.family,
            "attention": model.attention,
            "compiled": model.is_compiled,
        },
        "hooks": {hook: model.path_of(hook) for hook in spec.hooks},
        "lm_batch_contexts": spec.lm_batch_contexts,
        "device": model.device.type,
        "num_threads": torch.get_num_threads(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "transformers", "tokenizers", "numpy")
        },
    }


def open_cache(spec: StreamSpec, model: LanguageModel) -> BlockCache | None:
    """The cache that a stream asks for; None if it asks for none."""
    asked = spec.cache
    if asked is None:
        return None
    identity = {
        **pass_record(spec, model),
        "weights_changed_ns": model.files.weights_changed_ns(),
    }
    if model.device.type == "cuda":
        identity["gpu"] = torch.cuda.get_device_name(model.device)
    root = cache_dir() / "activations" if asked.folder is None else Path(asked.folder).expanduser()
    folder = BoundedFolder(root, asked.bytes, "the activation cache")
    return BlockCache(folder, identity, storage_dtype(asked, model.dtype), model.device)
