"""Effect by a finished style embedding: how much nearer an answer is to a group than to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.measures.effects.meter import Array

if TYPE_CHECKING:
    from steering.styles.model import StyleModel

__all__ = ["EmbeddingMargin", "open_embedding_margin"]


@dataclass(frozen=True)
class EmbeddingMargin:
    """d(nearest other group) over the sum of that and d(target): above 1/2 where it is nearest."""

    model: StyleModel
    group: str
    folder: str

    def score(self, texts: Sequence[str]) -> Array:
        """Within 0 and 1, [N], float64; 1/2 as near to the target as to the nearest other group."""
        is_text_N = np.array([bool(text.strip()) for text in texts])
        found_N = np.zeros(len(texts))
        own = [text for text in texts if text.strip()]
        if own:
            found_N[is_text_N] = self._margin(own)
        return found_N

    def _margin(self, texts: Sequence[str]) -> Array:
        from steering.styles.centroids import distances

        embedding_NE = self.model.embed_texts(texts)
        distance_NG = distances(embedding_NE, self.model.centroid_GE, self.model.distance).numpy()
        target = self.model.groups.index(self.group)
        own_N = distance_NG[:, target]
        other_N = np.delete(distance_NG, target, axis=1).min(axis=1)
        total_N = own_N + other_N
        half = np.full(len(texts), 0.5)
        margin_N: Array = np.divide(other_N, total_N, out=half, where=total_N > 0)
        return margin_N

    @property
    def record(self) -> Mapping[str, Any]:
        """Which group of which embedding."""
        return {"effect": "margin in a style embedding", "folder": self.folder, "group": self.group}


def open_embedding_margin(folder: str, group: str) -> EmbeddingMargin:
    """Load a finished `embedding`. Raises BadStyleData, BadSteeringInput for an unknown group."""
    from steering.styles.model import load

    model = load(Path(folder))
    if group not in model.groups:
        near = get_close_matches(group, model.groups, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadSteeringInput(
            f"group {group!r} is unknown to the embedding in {folder}; it knows "
            f"{', '.join(model.groups)}.{hint}"
        )
    return EmbeddingMargin(model, group, folder)
