"""Python's own manual as rows: real text in groups, on every machine."""

from __future__ import annotations

import re

from steering.styles.rows import Rows

MIN_CHARS = 80
"""Shorter paragraphs are headings and examples' single lines."""
PARAGRAPHS_IN_ITEM = 4
"""Neighbours speak of the same thing: they stay in one part of a split."""


def manual_rows() -> Rows:
    """A row a paragraph, its topic the group; four neighbours are an item. Repeats are left out."""
    from pydoc_data.topics import topics

    texts, groups, items, seen = [], [], [], set()
    for topic, text in sorted(topics.items()):
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
        for number, paragraph in enumerate(one for one in paragraphs if len(one) >= MIN_CHARS):
            if paragraph in seen:
                continue
            seen.add(paragraph)
            texts.append(paragraph)
            groups.append(topic)
            items.append(f"{topic}/{number // PARAGRAPHS_IN_ITEM}")
    return Rows(groups=groups, items=items, texts=texts)
