"""Which rows are trained on, chosen on and reported on: whole items, never single rows.

An item is what several rows have in common and what would leak: a question, an author, a thread.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from steering.styles.errors import BadStyleData

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending."""

    rows: Mapping[Part, tuple[int, ...]]


def split_by_item(
    items: Sequence[str],
    groups: Sequence[str],
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Split:
    """Deal items out, group by group, so that every group gets its share of each part.

    An item whose rows are of several groups (a question that many answered) goes to one part as a
    whole. Items are dealt in an order that follows from (seed, item) alone.

    Raises:
        BadStyleData: a group has too few items for each part to get one; all such groups named.
    """
    groups_of: dict[str, Counter[str]] = {}
    for item, group in zip(items, groups, strict=True):
        groups_of.setdefault(item, Counter())[group] += 1
    part_of: dict[str, Part] = {}
    have: dict[str, Counter[Part]] = {group: Counter() for group in set(groups)}
    total = Counter(groups)
    wanted = dict(zip(PARTS, shares, strict=True))
    # Items that many groups share first: they leave the least choice.
    for item in sorted(groups_of, key=lambda one: (-len(groups_of[one]), _order(seed, one))):
        rows = groups_of[item]
        missing = {
            part: sum(
                n * (wanted[part] - have[group][part] / total[group]) for group, n in rows.items()
            )
            for part in PARTS
        }
        part = max(PARTS, key=lambda one: (missing[one] / max(wanted[one], 1e-9), one == "train"))
        part_of[item] = part
        for group, count in rows.items():
            have[group][part] += count
    _refuse_empty_parts(have, groups_of)
    rows_of: dict[Part, list[int]] = {part: [] for part in PARTS}
    for row, item in enumerate(items):
        rows_of[part_of[item]].append(row)
    return Split({part: tuple(rows) for part, rows in rows_of.items()})


def check_no_leak(split: Split, items: Sequence[str], texts: Sequence[str] | None) -> None:
    """Refuse a split, also one that was given, in which an item or a text is in two parts.

    Raises:
        BadStyleData: with examples.
    """
    for what, values in (("item", items), ("text", texts)):
        if values is None:
            continue
        first_part: dict[str, Part] = {}
        leaks = []
        for part in PARTS:
            for row in split.rows[part]:
                seen = first_part.setdefault(values[row], part)
                if seen != part:
                    leaks.append(f"{values[row][:60]!r} in {seen} and {part}")
        if leaks:
            way_out = (
                "split by it" if what == "item" else "give such rows the same item, or drop repeats"
            )
            raise BadStyleData(
                f"{len(leaks)} rows leak across the split: the same {what} is in two parts "
                f"({'; '.join(leaks[:3])}); {way_out}"
            )


def _order(seed: int, item: str) -> bytes:
    return hashlib.sha256(f"{seed}/{item}".encode()).digest()


def _refuse_empty_parts(
    have: Mapping[str, Counter[Part]], groups_of: Mapping[str, Counter[str]]
) -> None:
    num_items = Counter(group for rows in groups_of.values() for group in rows)
    empty = [
        f"{group} ({num_items[group]} items)"
        for group, parts in sorted(have.items())
        if any(not parts[part] for part in PARTS)
    ]
    if empty:
        raise BadStyleData(
            f"groups with too few items to be in all of {', '.join(PARTS)}: {', '.join(empty)}; "
            "drop them with min_per_group, or name a finer item"
        )
