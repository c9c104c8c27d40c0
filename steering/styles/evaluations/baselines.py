"""How much of the separation is topic? The same split, told apart by words and by metadata alone.

Every column is told apart by a logistic regression, so that what differs is what it sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from steering.intervals import interval_of
from steering.styles.errors import BadStyleData
from steering.styles.evaluations.embedded import Array, Embedded, EmbeddedParts, macro_accuracy
from steering.styles.evaluations.few_shot import accuracy_interval, head_accuracy
from steering.styles.evaluations.outcome import Figure, Outcome

NAME = "baselines"

MAX_WORDS = 50_000
WORDS = {"topic_tfidf": True, "topic_bag_of_words": False}
"""Baseline -> whether words are weighted by TF-IDF."""


def baselines(parts: EmbeddedParts) -> Outcome:
    """Macro accuracy on test rows of the embedding and of what knows no style.

    `topic_tfidf` and `topic_bag_of_words` see content words (English function words, which are
    style, are left out); `metadata` sees the text's length and the rows' metadata.
    `embedding - ...` is a paired difference, over the same resampled items.
    """
    train, test = parts.train, parts.test
    known = sorted(set(train.rows.groups) & set(test.rows.groups))
    if len(known) < 2:
        return Outcome.skip(NAME, "fewer than two groups are both in train and test")
    test = test.take(np.flatnonzero(np.isin(test.groups, known)))
    right_N, group_N, items = head_accuracy(train, test, known)
    rights: dict[str, Array] = {"embedding": right_N}
    skipped: dict[str, str] = {}
    if train.rows.texts is None or test.rows.texts is None:
        skipped["topic"] = "the data has no texts (vectors alone): name their column with --text"
    else:
        for name, is_tfidf in WORDS.items():
            predicted = _words(train.rows.texts, train.groups, test.rows.texts, is_tfidf)
            rights[name] = predicted == test.groups
    if train.rows.texts is None and not train.metadata:
        skipped["metadata"] = "the data has neither texts nor --metadata columns"
    else:
        seen, unseen = _metadata(train), _metadata(test)
        rights["metadata"] = _categories(seen, unseen, train.groups) == test.groups
    figures = [
        replace(accuracy_interval(right, group_N, items), name=name, chance=1 / len(known))
        for name, right in rights.items()
    ]
    figures += [_difference(name, rights, group_N, items) for name in rights if name != "embedding"]
    notes = [_share(figures, len(known))] if "topic_tfidf" in rights else []
    if parts.was_trained_on:
        notes.append("The rows learned from are those that the embedding was trained on.")
    return Outcome(NAME, figures, skipped, notes, {"metadata": sorted(train.metadata)})


def _words(train: Sequence[str], groups: Array, test: Sequence[str], is_tfidf: bool) -> Array:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    kind = TfidfVectorizer if is_tfidf else CountVectorizer
    vectorizer = kind(stop_words="english", max_features=MAX_WORDS)
    try:
        seen = vectorizer.fit_transform(train)
    except ValueError as error:
        raise BadStyleData(
            "the texts have no content words to tell their topic by (all are English function "
            "words or single letters); leave --baselines out"
        ) from error
    head = LogisticRegression(max_iter=2000, C=10.0 if is_tfidf else 1.0).fit(seen, groups)
    predicted: Array = head.predict(vectorizer.transform(test))
    return predicted


def _metadata(some: Embedded) -> list[dict[str, Any]]:
    """A row's columns by name: numbers as they are, texts as categories; and its length."""
    found: list[dict[str, Any]] = [
        {name: _number_or_text(values[row]) for name, values in some.metadata.items()}
        for row in range(len(some))
    ]
    for columns, text in zip(found, some.rows.texts or (), strict=False):
        columns["(log of characters)"] = float(np.log1p(len(text)))
        columns["(log of words)"] = float(np.log1p(len(text.split())))
    return found


def _number_or_text(value: str) -> float | str:
    try:
        number = float(value)
    except ValueError:
        return value
    return number if np.isfinite(number) else value


def _categories(
    train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], groups: Array
) -> Array:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scaled = make_pipeline(
        DictVectorizer(sparse=True),
        StandardScaler(with_mean=False),
        LogisticRegression(max_iter=2000),
    )
    predicted: Array = scaled.fit(train, groups).predict(test)
    return predicted


def _difference(name: str, rights: Mapping[str, Array], group_N: Array, items: Array) -> Figure:
    ours, theirs = rights["embedding"], rights[name]

    def apart(rows: Array) -> float:
        own = macro_accuracy(ours[rows], group_N[rows])
        return own - macro_accuracy(theirs[rows], group_N[rows])

    return Figure(f"embedding - {name}", interval_of(apart, items), len(group_N))


def _share(figures: Sequence[Figure], num_groups: int) -> str:
    by_name = {one.name: one.interval.estimate for one in figures}
    chance = 1 / num_groups
    ours, topic = by_name["embedding"] - chance, by_name["topic_tfidf"] - chance
    if ours <= 0:
        return "The embedding is not above chance; there is no separation to explain."
    share = f"{100 * max(topic, 0) / ours:.0f}%"
    return (
        f"Content words alone come {share} as far above chance as the embedding: what they tell "
        "apart need not be style."
    )
