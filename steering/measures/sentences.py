"""Sentence embeddings of answers: one model a process, each text once. Imports torch to compute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.styles.encoders import EncoderSpec

if TYPE_CHECKING:
    from steering.styles.text_encoder import TextEncoder

__all__ = ["MINILM", "cosine", "sentence_features"]

Array = np.ndarray[Any, Any]

MINILM = EncoderSpec(builtin="minilm")
"""all-MiniLM-L6-v2, 384 numbers a text."""
MAX_KEPT = 20_000
"""Texts whose features a process keeps: 30 MB of MiniLM's."""


def sentence_features(texts: Sequence[str], encoder: EncoderSpec = MINILM) -> Array:
    """Features [N, D], float32, in the order of the texts. An empty text gives zeros.

    Raises:
        BadStyleData: the encoder cannot be loaded.
    """
    return _sentences(encoder.model_dump_json()).features(texts)


class _Sentences:
    """An encoder and what it has encoded."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._kept: dict[str, Array] = {}

    def features(self, texts: Sequence[str]) -> Array:
        found = {text: self._kept[text] for text in texts if text in self._kept}
        fresh = [t for t in dict.fromkeys(texts) if t.strip() and t not in found]
        if fresh:
            found |= dict(zip(fresh, self._encoder.encode(fresh), strict=True))
        self._kept |= found
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        nothing = np.zeros(self._encoder.width, dtype=np.float32)
        rows = [found.get(text, nothing) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, len(nothing)), dtype=np.float32)


@lru_cache(maxsize=2)
def _sentences(encoder_json: str) -> _Sentences:
    from steering.styles.text_encoder import load_encoder

    return _Sentences(load_encoder(EncoderSpec.model_validate_json(encoder_json)))


def cosine(first_ND: Array, second_ND: Array) -> Array:
    """Cosine of rows, [N], float64; 0 where one of them is zero."""
    length_N = np.linalg.norm(first_ND, axis=1) * np.linalg.norm(second_ND, axis=1)
    product_N = (first_ND * second_ND).sum(axis=1)
    found: Array = np.divide(product_N, length_N, out=np.zeros(len(length_N)), where=length_N > 0)
    return found.astype(np.float64)
