"""Which texts are trained on, chosen on and reported on: whole items, labels as even as can be.

Shape suffixes: N = texts, I = items, L = labels, C = what is counted of an item.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.data import LabelledTexts
from steering.probes.data_repeats import same_texts
from steering.styles.splits import PARTS, Part, Split

__all__ = ["PARTS", "Part", "Split", "check_split", "split_labelled"]

Array = np.ndarray[Any, Any]
SHOWN = 3
MIN_ITEMS = 2
"""Of a part: an interval is over items."""


def split_labelled(
    labelled: LabelledTexts,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Split:
    """Deal items out, those with the rarest labels first, each to the part that lacks them most.

    Iterative stratification (Sechidis et al. 2011, algorithm 1) over items in place of rows. What
    is counted of an item: its texts with each label, its texts without it, and for data with spans
    the labelled characters. The order follows from (seed, item) alone.

    Raises:
        BadSteeringInput: shares that do not add up; a part of fewer than two items; a part without
            any positive, or any negative, of a label.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise BadSteeringInput(f"shares={list(shares)} must be positive and add up to 1")
    names, item_N = np.unique(np.asarray(labelled.items, dtype=str), return_inverse=True)
    count_IC = _counts(labelled, item_N, len(names))
    part_I = _dealt(names, count_IC, np.asarray(shares), seed)
    split = Split(
        {part: tuple(np.flatnonzero(part_I[item_N] == p).tolist()) for p, part in enumerate(PARTS)}
    )
    _refuse_single_items(split, labelled)
    _refuse_empty(split, labelled)
    check_split(split, labelled)
    return split


def check_split(split: Split, labelled: LabelledTexts) -> None:
    """Refuse a split in which an item, or the same text, is in two parts.

    Letter case and white space make no other text. Raises BadSteeringInput with examples.
    """
    same = [str(first) for first in same_texts(labelled.texts)]
    for what, values, way_out in (
        ("item", labelled.items, "split by item"),
        ("text", same, "give such texts one item, or leave repeats out (repeats: drop)"),
    ):
        first_part: dict[str, Part] = {}
        leaks = []
        for part in PARTS:
            for row in split.rows[part]:
                seen = first_part.setdefault(values[row], part)
                if seen != part:
                    shown = values[row] if what == "item" else labelled.texts[row]
                    leaks.append(f"{shown[:60]!r} in {seen} and {part}")
        if leaks:
            raise BadSteeringInput(
                f"{len(leaks)} texts leak across the split: the same {what} is in two parts "
                f"({'; '.join(leaks[:SHOWN])}); {way_out}"
            )


def _counts(labelled: LabelledTexts, item_N: Array, num_items: int) -> Array:
    """For each item what is to be dealt out evenly, float64 [I, C]."""
    y_NL = labelled.y_NL.astype(np.float64)
    columns = [y_NL, 1 - y_NL]
    if labelled.spans is not None:
        marked_NL = np.zeros_like(y_NL)
        for row, spans in enumerate(labelled.spans):
            for span in spans:
                marked_NL[row, span.label] += span.end - span.start
        columns.append(marked_NL)
    count_NC = np.concatenate(columns, axis=1)
    count_IC = np.zeros((num_items, count_NC.shape[1]))
    np.add.at(count_IC, item_N, count_NC)
    return count_IC[:, count_IC.sum(axis=0) > 0]


def _dealt(names: Array, count_IC: Array, share_P: Array, seed: int) -> Array:
    """The part of each item, its place in PARTS."""
    order = np.argsort([_draw(seed, name) for name in names.tolist()])
    total_C = count_IC.sum(axis=0)
    wanted_PC = share_P[:, None] * total_C[None, :]
    part_I = np.full(len(names), -1)
    items_with_C = (count_IC > 0).sum(axis=0)
    for column in np.argsort(items_with_C, kind="stable"):
        own = [item for item in order if part_I[item] < 0 and count_IC[item, column] > 0]
        # Large items first: small ones can mend what a large one overfilled.
        for item in sorted(own, key=lambda one: -count_IC[one, column]):
            # How much of its share a part still lacks, of this first, of all counts on a tie.
            lack_P = wanted_PC[:, column] / (share_P * total_C[column])
            lack_all_P = (wanted_PC / total_C).sum(axis=1) / share_P
            part = max(range(len(PARTS)), key=lambda p: (round(lack_P[p], 9), lack_all_P[p]))
            part_I[item] = part
            wanted_PC[part] -= count_IC[item]
    return part_I


def _refuse_single_items(split: Split, labelled: LabelledTexts) -> None:
    counts = {part: len({labelled.items[row] for row in split.rows[part]}) for part in PARTS}
    few = [f"{part} has {count}" for part, count in counts.items() if count < MIN_ITEMS]
    if few:
        raise BadSteeringInput(
            f"each part needs at least {MIN_ITEMS} items, or no interval can be given, and of "
            f"{sum(counts.values())} items {' and '.join(few)}; read more texts (max_texts), raise "
            "the share of that part, or name a finer item"
        )


def _refuse_empty(split: Split, labelled: LabelledTexts) -> None:
    faults = []
    for place, name in enumerate(labelled.label_names):
        for part in PARTS:
            positives = int(labelled.y_NL[list(split.rows[part]), place].sum())
            if positives == 0:
                faults.append(f"{part} has no text with {name}")
            elif positives == len(split.rows[part]) and labelled.spans is None:
                faults.append(f"{part} has no text without {name}")
    if faults:
        num_items = len(set(labelled.items))
        raise BadSteeringInput(
            f"{num_items} items cannot be dealt out so that each part can be measured: "
            f"{'; '.join(faults[:5])}; raise the share of that part, name a finer item, or leave "
            "the label out (min_positives, drop_rare_labels)"
        )


def _draw(seed: int, item: str) -> str:
    return hashlib.sha256(f"{seed}/{item}".encode()).hexdigest()
