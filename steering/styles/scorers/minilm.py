"""Scores without data: how near text and attribute are as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steering.styles.scorers.source import Scores


@dataclass(frozen=True)
class Minilm:
    """(1 + cosine) / 2 of MiniLM's embeddings.

    A text on a subject is near attributes that name the subject, so knowledge is told better than
    style: fit for demonstrations and as a baseline.
    """

    def score(self, texts: Sequence[str], attributes: Sequence[str], cache: Path) -> Scores:
        from steering.styles.encoders import EncoderSpec, features_of
        from steering.styles.rows import Rows

        def units(some: Sequence[str]) -> Scores:
            labels = [str(row) for row in range(len(some))]
            rows = Rows(groups=labels, items=labels, texts=list(some))
            x_ND = features_of(EncoderSpec(builtin="minilm"), rows, cache)
            unit_ND: Scores = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True).clip(min=1e-12)
            return unit_ND

        cosine_NA = units(texts) @ units(attributes).T
        scores: Scores = ((1.0 + cosine_NA) / 2.0).clip(0.0, 1.0).astype(np.float32)
        return scores
