"""Effect by a finished style embedding: how much nearer an answer is to a group than to others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.measures.effects.meter import Array

if TYPE_CHECKING:
    from steering.styles.model import StyleModel

Embed = Callable[[Sequence[str]], Any]
"""Texts to embeddings [N, E], a tensor or an array."""

__all__ = ["EmbeddingMargin", "open_embedding_margin"]


@dataclass(frozen=True)
class EmbeddingMargin:
    """d(nearest other group) over the sum of that and d(target): above 1/2 where it is nearest."""

    model: StyleModel
    group: str
    folder: str
    others: tuple[str, ...]
    """The groups that it is told from."""
    embed: Embed
    about: Mapping[str, Any]

    def score(self, texts: Sequence[str]) -> Array:
        """Within 0 and 1, [N], float64; 1/2 as near to the target as to the nearest other group."""
        is_text_N = np.array([bool(text.strip()) for text in texts])
        found_N = np.zeros(len(texts))
        own = [text for text in texts if text.strip()]
        if own:
            found_N[is_text_N] = self._margin(own)
        return found_N

    def _margin(self, texts: Sequence[str]) -> Array:
        import torch

        from steering.styles.centroids import distances

        embedding_NE = torch.as_tensor(self.embed(texts))
        distance_NG = distances(embedding_NE, self.model.centroid_GE, self.model.distance).numpy()
        place = {group: column for column, group in enumerate(self.model.groups)}
        own_N = distance_NG[:, place[self.group]]
        other_N = distance_NG[:, [place[group] for group in self.others]].min(axis=1)
        total_N = own_N + other_N
        half = np.full(len(texts), 0.5)
        margin_N: Array = np.divide(other_N, total_N, out=half, where=total_N > 0)
        return margin_N

    @property
    def record(self) -> Mapping[str, Any]:
        """Which group of which embedding, against which others."""
        return {
            "effect": "margin in a style embedding",
            "folder": self.folder,
            "group": self.group,
            "others": list(self.others),
            "centroids_sha256": hashlib.sha256(self._centroid_bytes).hexdigest(),
            **self.about,
        }

    @property
    def _centroid_bytes(self) -> bytes:
        """Another embedding in the same folder has others: answers' scores are kept by these."""
        return self.model.centroid_GE.contiguous().cpu().numpy().tobytes()


def open_embedding_margin(
    folder: str,
    group: str,
    *,
    among: Sequence[str] | None = None,
    embedder: Callable[[StyleModel], Embed] | None = None,
    about: Mapping[str, Any] | None = None,
) -> EmbeddingMargin:
    """Load a finished `embedding`.

    Args:
        among: the groups that the nearest other one is looked for in; not given: all.
        embedder: how the model embeds texts; not given: by its own encoder.
        about: what the embedder is, for the record.

    Raises:
        BadStyleData: it cannot be loaded.
        BadSteeringInput: a group that it does not know.
    """
    from steering.styles.model import load

    model = load(Path(folder))
    for name in (group, *(among or ())):
        _check_known(name, model.groups, folder)
    others = tuple(one for one in among or model.groups if one != group)
    embed = model.embed_texts if embedder is None else embedder(model)
    return EmbeddingMargin(model, group, folder, others, embed, about or {})


def _check_known(group: str, groups: Sequence[str], folder: str) -> None:
    if group not in groups:
        near = get_close_matches(group, groups, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadSteeringInput(
            f"group {group!r} is unknown to the embedding in {folder}; it knows "
            f"{', '.join(groups)}.{hint}"
        )
