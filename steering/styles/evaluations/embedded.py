"""Rows and their embeddings by a finished model, split into parts that share no item.

A torch module where it embeds. Shape suffixes: N = rows, E = embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.styles.errors import BadStyleData
from steering.styles.rows import Rows

if TYPE_CHECKING:
    from steering.styles.centroids import Distance
    from steering.styles.model import StyleModel
    from steering.styles.splits import Split

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Embedded:
    """Some rows of a corpus."""

    embedding_NE: Array
    """float32."""
    rows: Rows
    metadata: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further columns: a value a row."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def groups(self) -> Array:
        """Names, [N]."""
        return np.asarray(self.rows.groups, dtype=str)

    @property
    def items(self) -> Array:
        """Names, [N]."""
        return np.asarray(self.rows.items, dtype=str)

    def take(self, rows: Sequence[int] | Array) -> Embedded:
        """Some rows, in that order."""
        places = np.asarray(rows, dtype=np.int64)
        columns = {name: [v[row] for row in places] for name, v in self.metadata.items()}
        return Embedded(self.embedding_NE[places], self.rows.take(places.tolist()), columns)

    def and_also(self, other: Embedded) -> Embedded:
        """Both, one after the other, without metadata."""
        ours, theirs = self.rows, other.rows
        texts = None
        if ours.texts is not None and theirs.texts is not None:
            texts = [*ours.texts, *theirs.texts]
        corpora = None
        if ours.corpora is not None and theirs.corpora is not None:
            corpora = [*ours.corpora, *theirs.corpora]
        rows = Rows(
            [*ours.groups, *theirs.groups], [*ours.items, *theirs.items], texts, corpora=corpora
        )
        return Embedded(np.concatenate([self.embedding_NE, other.embedding_NE]), rows)


@dataclass(frozen=True)
class EmbeddedParts:
    """A corpus; no item is in two parts."""

    train: Embedded
    validation: Embedded
    test: Embedded
    distance: Distance
    """What the model compares embeddings by."""
    was_trained_on: bool
    """Whether the model saw `train`: its embeddings are then further apart than new ones are."""

    @property
    def pool(self) -> Embedded:
        """All but the test rows, less what the model was trained on."""
        return self.validation if self.was_trained_on else self.train.and_also(self.validation)


def embed_rows(model: StyleModel, rows: Rows, cache: Path) -> Array:
    """Embeddings [N, E] of a table. Raises BadStyleData where it lacks what the model reads."""
    if model.encoder_spec.features:
        if rows.vectors is None:
            raise BadStyleData(
                "this embedding was trained on given vectors, not on texts; name the column that "
                "has them: --vector COL"
            )
        return model.embed(rows.vectors).numpy()
    if rows.texts is None:
        raise BadStyleData("this embedding reads texts; name their column: --text COL")
    return embed_texts(model, rows.texts, cache)


def embed_texts(model: StyleModel, texts: Sequence[str], cache: Path) -> Array:
    """Embeddings [N, E] of texts; what a frozen encoder gave is kept in the cache.

    Raises:
        BadStyleData: the model reads given vectors, or its encoder cannot be loaded.
    """
    spec = model.encoder_spec
    if spec.features or spec.tune != "frozen":
        return model.embed_texts(texts).numpy()
    from steering.styles.encoders import features_of

    names = [str(row) for row in range(len(texts))]
    rows = Rows(groups=names, items=names, texts=texts)
    return model.embed(features_of(spec, rows, cache)).numpy()


def checked_split(rows: Rows, shares: tuple[float, float, float], seed: int) -> Split:
    """Which rows go where. Raises BadStyleData for small groups, and for texts in two parts."""
    from steering.styles.splits import check_no_leak, split_by_item

    split = split_by_item(rows.items, rows.groups, shares, seed)
    check_no_leak(split, rows.items, rows.texts)
    return split


def split_embedded(
    whole: Embedded,
    shares: tuple[float, float, float],
    seed: int,
    distance: Distance,
    *,
    was_trained_on: bool,
) -> EmbeddedParts:
    """Deal rows out by whole items, as the embedding job does. Raises BadStyleData."""
    split = checked_split(whole.rows, shares, seed)
    return EmbeddedParts(
        whole.take(split.rows["train"]),
        whole.take(split.rows["validation"]),
        whole.take(split.rows["test"]),
        distance,
        was_trained_on,
    )


def distances(one_NE: Array, other_NE: Array, distance: Distance) -> Array:
    """From each embedding to the one in the same row, [N], float64."""
    one_NE, other_NE = one_NE.astype(np.float64), other_NE.astype(np.float64)
    if distance == "euclidean":
        return np.linalg.norm(one_NE - other_NE, axis=1)
    lengths_N = np.linalg.norm(one_NE, axis=1) * np.linalg.norm(other_NE, axis=1)
    cosine_N: Array = (one_NE * other_NE).sum(axis=1) / lengths_N.clip(min=1e-12)
    return np.subtract(1.0, cosine_N)


def macro_accuracy(right_N: Array, group_N: Array) -> float:
    """Share of right answers in each group, averaged over the groups that have rows.

    Args:
        right_N: bool.
        group_N: numbers of the groups, from 0 on.
    """
    counts_G = np.bincount(group_N)
    hits_G = np.bincount(group_N, weights=right_N)
    there = counts_G > 0
    return float((hits_G[there] / counts_G[there]).mean())
