"""Style that can be counted in a text: targets for demonstrations and tests, on every machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from steering.styles.catalogue import Attribute

_WORD = re.compile(r"[A-Za-z']+")


def _a_hundred_words(pattern: str) -> Callable[[str], float]:
    """How often a pattern comes in a hundred words."""
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: 100.0 * len(compiled.findall(text)) / max(1, len(_WORD.findall(text)))


def _mean_word_length(text: str) -> float:
    words = _WORD.findall(text)
    return sum(map(len, words)) / max(1, len(words))


def _mean_sentence_words(text: str) -> float:
    return len(_WORD.findall(text)) / max(1, len(re.findall(r"[.!?](?:\s|$)", text)))


_MEASURES: dict[str, tuple[str, float, Callable[[str], float]]] = {
    "long_words": ("The author uses long words.", 5.0, _mean_word_length),
    "long_sentences": ("The author writes long sentences.", 20.0, _mean_sentence_words),
    "commas": ("The author uses many commas.", 6.0, _a_hundred_words(",")),
    "parentheses": ("The author uses parentheses.", 4.0, _a_hundred_words(r"\(")),
    "quotes": ("The author uses quotation marks.", 4.0, _a_hundred_words(r"[\"'`]\w")),
    "digits": ("The author uses numbers.", 4.0, _a_hundred_words(r"\b\d+")),
    "reader": ("The author addresses the reader.", 1.0, _a_hundred_words(r"\byou\b|\byour\b")),
    "hedges": (
        "The author hedges.",
        2.0,
        _a_hundred_words(r"\b(?:may|might|can|could|should|usually|often|typically)\b"),
    ),
    "negation": ("The author negates.", 2.0, _a_hundred_words(r"\b(?:not|no|never|none|cannot)\b")),
    "passive": (
        "The author uses passive voice.",
        3.0,
        _a_hundred_words(r"\b(?:is|are|was|were|be|been|being)\s+\w+(?:ed|en)\b"),
    ),
    "code": ("The author writes code.", 6.0, _a_hundred_words(r"[=_{}\[\]]|>>>|\w\(")),
}
"""Id -> text, the value at which the score is one half, and what is counted."""

COUNTABLE: tuple[Attribute, ...] = tuple(
    Attribute(id=name, text=text) for name, (text, _, _) in _MEASURES.items()
)


def countable_scores(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores [texts, attributes] of `COUNTABLE`: x / (x + half), within 0 and 1."""
    scores = np.empty((len(texts), len(_MEASURES)), dtype=np.float32)
    for row, text in enumerate(texts):
        for place, (_, half, measure) in enumerate(_MEASURES.values()):
            value = measure(text)
            scores[row, place] = value / (value + half)
    return scores
