"""What the text's surface alone tells: bag of words, length, metadata. No model is read.

Everything is learned from the training texts; words and values that only others have are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec
from steering.probes.matrices import Array, Matrix
from steering.probes.method import FittedProbe
from steering.probes.parts import Parts, fit_parts, macro_auroc

__all__ = [
    "Baseline",
    "bag_of_words",
    "length_features",
    "metadata_features",
    "triviality_baselines",
]

MAX_WORDS = 20_000


@dataclass(frozen=True)
class Baseline:
    """A probe over features that need no model."""

    name: str
    fitted: FittedProbe
    test_NL: Array
    """Scores of the test rows."""
    calibrated_NL: Array
    """The same as log odds that can be compared between classes."""
    test_auroc: float


def bag_of_words(
    train: Sequence[str], *others: Sequence[str], max_words: int = MAX_WORDS
) -> tuple[Matrix, ...]:
    """TF-IDF of words and pairs of words, CSR [texts, words], of each list of texts.

    A word of one letter or sign counts too, since texts may be single tokens.

    Raises:
        BadSteeringInput: training texts without any word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), max_features=max_words, sublinear_tf=True, token_pattern=r"\w+|[^\w\s]+"
    )
    try:
        first = vectorizer.fit_transform(train)
    except ValueError as error:
        raise BadSteeringInput(f"bag of words of {len(train)} training texts: {error}") from None
    return first, *(vectorizer.transform(texts) for texts in others)


def length_features(texts: Sequence[str]) -> Array:
    """Characters, words, lines, and the logarithms of the first two, float64 [texts, 5]."""
    rows = [(len(text), len(text.split()), text.count("\n") + 1) for text in texts]
    count_N3 = np.array(rows, dtype=np.float64).reshape(len(texts), 3)
    return np.concatenate([count_N3, np.log1p(count_N3[:, :2])], axis=1)


def metadata_features(
    train: Sequence[Mapping[str, Any]], *others: Sequence[Mapping[str, Any]]
) -> tuple[Matrix, ...]:
    """Numbers as they are, all else a column a value, CSR [rows, columns]; None is left out."""
    from sklearn.feature_extraction import DictVectorizer

    vectorizer = DictVectorizer()
    first = vectorizer.fit_transform([_plain(row) for row in train])
    return first, *(vectorizer.transform([_plain(row) for row in rows]) for rows in others)


def _plain(row: Mapping[str, Any]) -> dict[str, float | str]:
    return {
        name: float(value) if isinstance(value, int | float) else str(value)
        for name, value in row.items()
        if value is not None and value == value
    }


def triviality_baselines(
    parts: Parts,
    texts: tuple[Sequence[str], Sequence[str], Sequence[str]],
    metadata: tuple[Sequence[Mapping[str, Any]], ...] | None = None,
    *,
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    seed: int = 0,
    label_names: Sequence[str] | None = None,
) -> dict[str, Baseline]:
    """`bag_of_words`, `length`, and `metadata` where there is some: logistic regressions (L2).

    Args:
        texts: of each row of train, validation and test; a token's own text for rows of tokens.
        metadata: of each row, in the same way.

    Raises:
        BadSteeringInput: other numbers of texts than of rows.
    """
    for part, own in zip(parts.all, texts, strict=True):
        if len(own) != len(part.items):
            raise BadSteeringInput(f"{len(own)} texts for {len(part.items)} rows; give one a row")
    features: dict[str, tuple[Matrix, ...]] = {
        "bag_of_words": bag_of_words(*texts),
        "length": tuple(length_features(own) for own in texts),
    }
    if metadata is not None:
        features["metadata"] = metadata_features(*metadata)
    out = {}
    for name, (train, validation, test) in features.items():
        other = parts.with_features(train, validation, test)
        fitted = fit_parts(
            "logistic_l2", {}, other, imbalance=imbalance, seed=seed, label_names=label_names
        )
        score_NL = fitted.scores(test)
        value = macro_auroc(score_NL, parts.test.y_NL)
        out[name] = Baseline(name, fitted, score_NL, fitted.calibrated(test), value)
    return out
