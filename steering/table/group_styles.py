"""Which style the groups' own texts have, and which attributes tell a group from the others.

Shape suffixes: G = groups, A = attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.styles.catalogue import Catalogue
from steering.styles.rows import Rows, spread_rows
from steering.styles.scorers import ScorerSpec, score_attributes

__all__ = ["GroupStyles", "leading_attributes", "styles_of_groups"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class GroupStyles:
    """A style vector for each group, over the attributes that are style."""

    groups: tuple[str, ...]
    ids: tuple[str, ...]
    style_GA: Array
    num_texts: Mapping[str, int]
    """How many texts each group's was taken from."""


def styles_of_groups(
    rows: Rows,
    groups: Sequence[str],
    catalogue: Catalogue,
    scorer: ScorerSpec,
    aggregator: Any,
    cache: Path,
    *,
    texts_per_group: int,
) -> GroupStyles:
    """Score the groups' texts, or take the style vectors that the table has.

    Args:
        aggregator: median or mean, attribute by attribute.
        cache: a folder that may be emptied at any time.
        texts_per_group: most texts of a group that are scored, evenly spread over its rows.

    Raises:
        BadSteeringInput: a group without rows, or vectors of another length than the catalogue.
    """
    from steering.composition.weights import group_styles

    missing = [group for group in groups if group not in set(rows.groups)]
    if missing:
        raise BadSteeringInput(
            f"the table of texts has none of the groups {', '.join(missing)}; it has "
            f"{', '.join(sorted(set(rows.groups)))}"
        )
    picked = rows.take(spread_rows(rows.groups, groups, texts_per_group))
    places = catalogue.places("style")
    if picked.vectors is not None and picked.texts is None:
        catalogue.check_length(picked.vectors.shape[1])
        style_NA = picked.vectors[:, places]
    elif picked.texts is not None:
        texts = [catalogue.attributes[place].text for place in places]
        style_NA = score_attributes(scorer, picked.texts, texts, cache)
    else:
        raise BadSteeringInput("the groups' table has neither texts nor vectors; name their column")
    found, style_GA = group_styles(style_NA, picked.groups, aggregator)
    order = [found.index(group) for group in groups]
    return GroupStyles(
        tuple(groups),
        tuple(catalogue.ids[place] for place in places),
        style_GA[order],
        {group: list(picked.groups).count(group) for group in groups},
    )


def leading_attributes(styles: GroupStyles, count: int) -> dict[str, list[str]]:
    """For each group the attributes by which it leads the next group most, the first in front.

    The gap of an attribute is the group's value less the largest of the others'. Where a group
    leads in fewer than `count`, those follow in which it is least behind.
    """
    found = {}
    for place, group in enumerate(styles.groups):
        others_GA = np.delete(styles.style_GA, place, axis=0)
        gap_A = styles.style_GA[place] - others_GA.max(axis=0)
        order = np.argsort(-gap_A, kind="stable")[:count]
        found[group] = [styles.ids[attribute] for attribute in order]
    return found
