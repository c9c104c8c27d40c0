"""Texts that stand under several items: a leak, since items are what a split keeps together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from steering.errors import BadSteeringInput
from steering.probes.data import LabelledTexts

__all__ = ["same_texts", "without_repeats"]

SHOWN = 3


def same_texts(texts: Sequence[str]) -> list[int]:
    """For each text the first row that holds the same one, letter case and white space aside."""
    first: dict[str, int] = {}
    return [
        first.setdefault(" ".join(text.split()).casefold(), row) for row, text in enumerate(texts)
    ]


def without_repeats(
    labelled: LabelledTexts, repeats: Literal["refuse", "drop", "one_item"]
) -> LabelledTexts:
    """Deal with texts that several items share; repeats within an item stay.

    Raises:
        BadSteeringInput: there are some, and they are refused; with examples.
    """
    items = labelled.items
    first = same_texts(labelled.texts)
    shared = [row for row, one in enumerate(first) if items[row] != items[one]]
    if not shared:
        return labelled
    if repeats == "drop":
        left_out = set(shared)
        return labelled.take([row for row in range(len(labelled)) if row not in left_out])
    if repeats == "one_item":
        return replace(labelled, items=_joined(items, [(row, first[row]) for row in shared]))
    examples = "; ".join(
        f"{labelled.texts[row][:60]!r} under {items[first[row]]} and {items[row]}"
        for row in shared[:SHOWN]
    )
    raise BadSteeringInput(
        f"{len(shared)} texts repeat under another item, so a split by item would leak them "
        f"({examples}); leave them out with repeats: drop, or make such items one with repeats: "
        "one_item"
    )


def _joined(items: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Items, those of each pair of rows made one (union-find); the name is the earliest one."""
    parent: dict[str, str] = {}

    def root(item: str) -> str:
        while item in parent:
            item = parent[item]
        return item

    order = {item: number for number, item in reversed(list(enumerate(items)))}
    for one, other in pairs:
        earlier, later = sorted((root(items[one]), root(items[other])), key=order.__getitem__)
        if earlier != later:
            parent[later] = earlier
    return [root(item) for item in items]
