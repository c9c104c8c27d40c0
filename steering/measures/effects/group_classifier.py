"""Effect by a group's own texts: a small classifier of these against the other groups' texts."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steering.errors import BadSteeringInput
from steering.measures.effects.contrast_classifier import (
    ContrastClassifier,
    fit_contrast_classifier,
)
from steering.measures.effects.meter import Array
from steering.styles.rows import Rows, spread_rows

__all__ = ["GroupClassifier", "fit_group_classifier"]

HELD_OUT = 0.25
"""Share of the items that the classifier is measured on."""

Sides = tuple[list[str], list[str]]


@dataclass(frozen=True)
class GroupClassifier:
    """P(target group) of a text, against all other groups together."""

    classifier: ContrastClassifier
    target: str
    texts_sha256: str

    def score(self, texts: Sequence[str]) -> Array:
        """P(target), [N], float64; 0 for an empty text. Raises BadStyleData."""
        return self.classifier.score(texts)

    @property
    def record(self) -> Mapping[str, Any]:
        """Which group of which texts, and how well it is told apart."""
        return {
            **self.classifier.record,
            "effect": "probability of a group against the others, by their texts' embeddings",
            "group": self.target,
            "texts_sha256": self.texts_sha256,
        }


def fit_group_classifier(
    rows: Rows, target: str, groups: Sequence[str], *, texts_per_group: int
) -> GroupClassifier:
    """Fit on three quarters of the items and measure on the others.

    Args:
        groups: those that take part, the target among them.
        texts_per_group: most texts of a group that are taken, evenly spread over its rows.

    Raises:
        BadSteeringInput: rows without texts, or groups that cannot be told apart.
        BadStyleData: the encoder cannot be loaded.
    """
    if rows.texts is None:
        raise BadSteeringInput(
            "the groups' table has vectors and no texts, and the effect is measured by a "
            "classifier of texts; name their column, or an embedding of the groups (groups: "
            "{embedding: FOLDER})"
        )
    some = rows.take(spread_rows(rows.groups, groups, texts_per_group))
    held = _held_items(some, target)
    train: Sides = ([], [])
    validation: Sides = ([], [])
    for text, group, item in zip(some.texts or (), some.groups, some.items, strict=True):
        part = validation if item in held else train
        part[group != target].append(text)
    said = json.dumps([train, validation])
    sides = f"the texts of {target!r} and of the other groups"
    classifier = fit_contrast_classifier(train, validation, sides=sides)
    return GroupClassifier(classifier, target, hashlib.sha256(said.encode()).hexdigest())


def _held_items(rows: Rows, target: str) -> set[str]:
    """A share of the items with texts of the target, and as large a one of the others."""
    pairs = zip(rows.items, rows.groups, strict=True)
    of_target = {item for item, group in pairs if group == target}
    chance = random.Random(0)
    held: set[str] = set()
    for items in (sorted(of_target), sorted(set(rows.items) - of_target)):
        held.update(chance.sample(items, round(HELD_OUT * len(items))))
    return held
