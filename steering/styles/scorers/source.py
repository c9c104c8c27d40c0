"""What a source of scores promises, and how it finds the attributes that it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from steering.styles.catalogue import Attribute
from steering.styles.errors import BadStyleData

Scores = np.ndarray[Any, np.dtype[np.float32]]

SHOWN = 3


class ScorerSource(Protocol):
    """Scores texts."""

    def score(self, texts: Sequence[str], attributes: Sequence[str], cache: Path) -> Scores:
        """Scores [texts, attributes], float32 within 0 and 1. Raises BadStyleData."""
        ...


def places_of(wanted: Sequence[str], attributes: Sequence[Attribute], where: str) -> list[int]:
    """At which places of a source's own vectors the attributes are, by id or by text.

    Raises:
        BadStyleData: names those that it does not know.
    """
    place_of = {_plain(one.text): place for place, one in enumerate(attributes)}
    place_of |= {_plain(one.id): place for place, one in enumerate(attributes)}
    unknown = [one for one in wanted if _plain(one) not in place_of]
    if unknown:
        near = get_close_matches(_plain(unknown[0]), list(place_of), n=1)
        hint = f"; the nearest it has is {near[0]!r}" if near else ""
        shown = ", ".join(repr(one) for one in unknown[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise BadStyleData(
            f"{where} has {len(attributes)} attributes and does not know {shown}{more}{hint}; ask "
            "by the ids or texts of its catalogue"
        )
    return [place_of[_plain(one)] for one in wanted]


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
