"""Memory of a language model in a trial that has one of its own. Plain numbers, no torch."""

from __future__ import annotations

from sae.memory import BYTES_BY_DTYPE
from sae.model_shapes import known_shapes
from sae.stream_spec import ModelSpec

__all__ = ["ANSWERING_BYTES", "language_model_bytes"]

ANSWERING_BYTES = 1100 * 2**20
"""Beside the weights of a model that generates: libraries, sentence encoder, keys and values, and
logits of a batch. Measured with SmolLM2 on a CPU: 0.6 GiB once loaded, 1.02 GiB with 32 rows."""

UNKNOWN_MODEL_BYTES = 2 * 2**30
"""Planned for a model that nothing is known of."""


def language_model_bytes(model: ModelSpec) -> int:
    """Bytes of the weights, on the dearer device: a CPU, which runs in float32 if not told."""
    shape = known_shapes(model)
    if shape is None:
        return UNKNOWN_MODEL_BYTES
    return BYTES_BY_DTYPE[model.dtype or "float32"] * shape.num_parameters
