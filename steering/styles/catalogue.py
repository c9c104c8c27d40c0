"""A versioned list of style attributes: what each place of a style vector stands for.

Its hash goes into everything that is derived from it, so that a vector of one catalogue is never
read with another.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from steering.styles.errors import BadStyleData

Role = Literal["style", "knowledge", "target"]
"""A target is a style attribute that texts are steered towards; knowledge says what its author
knows or writes about, and is no style."""


class Attribute(BaseModel):
    """One place of a style vector."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    """As a sentence: "The author uses passive voice."."""
    role: Role = "style"


class Catalogue(BaseModel):
    """Attributes in the order of a style vector's places."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    dimension: int = Field(gt=0)
    """Declared length of a style vector; the list has to agree with it."""
    attributes: tuple[Attribute, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = [
            *_duplicates("id", [attribute.id for attribute in self.attributes]),
            *_duplicates("text", [_plain(attribute.text) for attribute in self.attributes]),
        ]
        if len(self.attributes) != self.dimension:
            off = len(self.attributes) - self.dimension
            way_out = f"remove {off}" if off > 0 else f"{-off} are missing"
            faults.append(
                f"{len(self.attributes)} attributes, but dimension={self.dimension}: {way_out}"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def ids(self) -> tuple[str, ...]:
        """In the order of a vector's places."""
        return tuple(attribute.id for attribute in self.attributes)

    def places(self, *roles: Role) -> list[int]:
        """Places of the attributes with one of these roles; targets are style, too."""
        wanted = set(roles) | ({"target"} if "style" in roles else set())
        return [place for place, one in enumerate(self.attributes) if one.role in wanted]

    @cached_property
    def sha256(self) -> str:
        """Of what a vector's places mean: ids, texts and roles in their order."""
        text = json.dumps([one.model_dump() for one in self.attributes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_attributes(self, ids: Sequence[str]) -> None:
        """Whether a vector whose places are called so fits.

        Raises:
            BadStyleData: names what comes twice, what is missing, and what is unknown.
        """
        if tuple(ids) == self.ids:
            return
        known = set(self.ids)
        faults = _duplicates("attribute", list(ids))
        if missing := [one for one in self.ids if one not in set(ids)]:
            faults.append(f"missing: {_some(missing)}")
        if unknown := [one for one in ids if one not in known]:
            faults.append(f"not in the catalogue: {_some(unknown)}")
        if not faults:
            faults.append("the same attributes in another order")
        raise BadStyleData(
            f"a vector of {len(ids)} attributes does not fit catalogue {self.name} "
            f"{self.version} with its {self.dimension}: {'; '.join(faults)}"
        )

    def check_length(self, length: int) -> None:
        """Whether a vector without names fits. Raises BadStyleData."""
        if length != self.dimension:
            raise BadStyleData(
                f"style vectors have {length} numbers, but catalogue {self.name} {self.version} "
                f"has {self.dimension} attributes; an attribute that was picked twice under two "
                "roles and counted once makes one too few: name the columns, and it is found"
            )


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue from JSON. Raises BadStyleData with all faults."""
    try:
        return Catalogue.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadStyleData(f"{path}: cannot be read ({error.strerror}); name a file") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'catalogue'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise BadStyleData(f"{path}: is no catalogue: {'; '.join(lines)}") from error


def _duplicates(what: str, names: Sequence[str]) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    return [f"{what} given more than once: {_some(twice)}"] if twice else []


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
