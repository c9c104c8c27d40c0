"""What features depend on, as JSON: equal identities have equal features. A torch module."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.probes.features.spec import ExtractSettings

__all__ = ["digest_of", "model_identity", "reading_identity", "sae_identity"]

FORMAT = 1


def digest_of(identity: Mapping[str, Any]) -> str:
    """32 hex digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def model_identity(lm: LanguageModel) -> dict[str, Any]:
    """Weights and how they are run."""
    return {
        "name": lm.files.name,
        "revision": lm.files.revision,
        "weights_sha256": lm.files.weights_sha256(),
        "weights_changed_ns": lm.files.weights_changed_ns(),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "attention": lm.attention,
        "compiled": lm.is_compiled,
        "device": lm.device.type,
    }


def sae_identity(sae: TrainedSae) -> str:
    """Hash of everything that its latents depend on: configuration and weights."""
    digest = hashlib.sha256()
    digest.update(sae.architecture.encode())
    config = sae.sae.cfg.to_dict()
    config.pop("device", None)
    config.pop("metadata", None)
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(sae.sae.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def reading_identity(
    lm: LanguageModel, texts: Sequence[str], settings: ExtractSettings
) -> dict[str, Any]:
    """All that activations depend on, but the hook: the model, the texts, how they are read.

    The order of the texts and the sizes of parts and batches are in it too: what is computed in
    other batches is rounded otherwise in the last bits, and parts of both must not be mixed.
    """
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return {
        "format": FORMAT,
        "model": model_identity(lm),
        "texts_sha256": digest.hexdigest(),
        "num_texts": len(texts),
        "settings": settings.model_dump(mode="json"),
    }
