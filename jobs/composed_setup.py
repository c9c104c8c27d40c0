"""What kinds that compose groups' vectors share: keys of the sweep file, trial fields. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.input_files import missing_files
from steering.composition import CompositionSpec
from steering.errors import BadSteeringInput
from steering.styles.catalogue import Catalogue, read_catalogue
from steering.styles.rows import RowsSpec, read_rows
from steering.styles.scorers import ScorerSpec

__all__ = [
    "NEEDS",
    "CompositionParameters",
    "GroupsSpec",
    "StyleSource",
    "composition_faults",
    "groups_of",
]

NEEDS = "needs"
"""Stands for the artefacts of the sweeps that a sweep needs."""
MIN_GROUPS = 2


class StyleSource(BaseModel):
    """What says which style the groups' texts have."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    catalogue: str | None = Field(default=None, min_length=1)
    """File of the catalogue of style attributes; not given: forty built-in ones."""
    scorer: ScorerSpec = ScorerSpec(builtin="minilm")
    """What says how much of each attribute a text has."""
    texts_per_group: int = Field(default=100, gt=0)
    """Most texts of a group that are scored."""

    def read_catalogue(self) -> Catalogue:
        """The attributes. Raises BadStyleData."""
        if self.catalogue is not None:
            return read_catalogue(Path(self.catalogue))
        from steering.table.builtin_attributes import builtin_catalogue

        return builtin_catalogue()

    def faults_of_files(self) -> list[tuple[tuple[str | int, ...], str]]:
        """What the disk says against scorer and catalogue, in the form of `JobKind.check_here`."""
        faults: list[tuple[tuple[str | int, ...], str]] = []
        regressor = self.scorer.regressor
        if regressor is not None and not Path(regressor).is_dir():
            said = f"there is no folder {regressor!r}; name that of a finished style_scorer"
            faults.append((("scorer", "regressor"), said))
        try:
            self.read_catalogue()
        except BadSteeringInput as error:
            faults.append((("catalogue",), str(error)))
        return faults


class CompositionParameters(BaseModel):
    """How trials compose a group's vector."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    weights: Literal["softmax", "top_k"] = "softmax"
    """How a group's vector is composed of its attributes' vectors."""
    tau: float = Field(default=0.05, gt=0)
    """Temperature of the softmax over a group's style; small ones leave few attributes."""
    top_k: int = Field(default=20, gt=0)
    """Attributes of a group, for top_k."""
    aggregator: Literal["median", "mean"] = "median"
    """A group's style from those of its texts."""
    centre: bool = True
    """Take off what all attributes, and all groups, have in common."""

    def composition(self, num_attributes: int) -> CompositionSpec:
        """The same for so many attributes; the default of top_k is no more than these.

        Raises:
            BadSteeringInput: a top_k that was asked for is more than these.
        """
        if self.weights == "top_k" and "top_k" in self.model_fields_set:
            fault = _too_many(self.top_k, num_attributes)
            if fault is not None:
                raise BadSteeringInput(fault)
        return CompositionSpec(
            weights=self.weights,
            aggregator=self.aggregator,
            tau=self.tau,
            top_k=min(self.top_k, num_attributes),
            centre=self.centre,
        )


class GroupsSpec(StyleSource):
    """Groups whose style is known by their texts, and the one that is steered towards."""

    target: str = Field(min_length=1)
    """The group that answers should come to read like."""
    data: RowsSpec | None = None
    """The groups' own texts (or style vectors), which their style is taken from; not given: what
    `embedding` was made from."""
    embedding: str | None = Field(default=None, min_length=1)
    """Folder of a finished style embedding, or `needs`: the effect is how much nearer answers are
    to the target in it than to the next group; not given: a classifier of the texts in `data`."""
    among: tuple[str, ...] | None = None
    """Which groups the target is set apart from, itself among them; not given: all there are."""

    @model_validator(mode="after")
    def _several_with_the_target(self) -> Self:
        if self.data is None and self.embedding is None:
            raise ValueError(
                "give the groups' texts (data: ...), or an embedding that was made from them "
                "(embedding: FOLDER, or needs); got neither"
            )
        if self.among is None:
            return self
        if len(set(self.among)) < max(MIN_GROUPS, len(self.among)):
            raise ValueError(
                f"among={list(self.among)}: at least {MIN_GROUPS} different groups are needed, or "
                "there is nothing to set the target apart from"
            )
        if self.target not in self.among:
            raise ValueError(
                f"target={self.target!r} is not among={list(self.among)}; add it there"
            )
        return self

    def faults_here(self) -> list[tuple[tuple[str | int, ...], str]]:
        """What the disk says against it, in the form of `JobKind.check_here`."""
        faults = [(("groups", *at), said) for at, said in self.faults_of_files()]
        if self.embedding not in (None, NEEDS) and not Path(self.embedding).is_dir():
            said = f"there is no folder {self.embedding!r}; name that of a finished embedding"
            faults.append((("groups", "embedding"), said))
        if self.data is None:
            return faults
        faults += missing_files(self.data.files, ("groups", "data", "files"))
        if self.data.labels is not None:
            faults += missing_files(self.data.labels, ("groups", "data", "labels"))
        if self.data.builtin is not None:  # the others may be long: they are read by trials
            try:
                groups_of(self, read_rows(self.data).groups)
            except BadSteeringInput as error:
                faults.append((("groups", "data"), str(error)))
        return faults


def composition_faults(source: StyleSource, config: Mapping[str, Any]) -> list[str]:
    """Faults of a trial's composition that no single field shows, in the form of `JobKind.check`.

    A catalogue that cannot be read here is not judged: that is the word of `check_here`.
    """
    if "top_k" not in config:
        return []
    if config.get("weights", "softmax") != "top_k":
        return [
            f"top_k={config['top_k']} counts for nothing where all attributes are weighed; "
            "write weights: top_k, or give top_k a when: {weights: top_k}"
        ]
    num_attributes = _num_attributes(source)
    fault = None if num_attributes is None else _too_many(config["top_k"], num_attributes)
    return [] if fault is None else [fault]


def _too_many(top_k: int, num_attributes: int) -> str | None:
    if top_k <= num_attributes:
        return None
    return (
        f"top_k={top_k} is more than the catalogue's {num_attributes} attributes of style; lower "
        "it, or take all of them with weights: softmax"
    )


def _num_attributes(source: StyleSource) -> int | None:
    """Attributes of style; None if the catalogue cannot be read here."""
    try:
        changed_ns = 0 if source.catalogue is None else Path(source.catalogue).stat().st_mtime_ns
        return _num_attributes_of(source.catalogue, changed_ns)
    except (OSError, BadSteeringInput):
        return None


@lru_cache(maxsize=4)
def _num_attributes_of(catalogue: str | None, changed_ns: int) -> int:
    """Once for the many configurations of a sweep."""
    del changed_ns
    return len(StyleSource(catalogue=catalogue).read_catalogue().places("style"))


def groups_of(spec: GroupsSpec, labels: Sequence[str]) -> tuple[str, ...]:
    """The groups that take part, of a table with these labels.

    Raises:
        BadSteeringInput: the target or one of `among` is not in the table.
    """
    there = sorted(set(labels))
    for name in (spec.target, *(spec.among or ())):
        if name not in there:
            near = get_close_matches(name, there, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise BadSteeringInput(
                f"the table of texts has no group {name!r}; it has {', '.join(there)}.{hint}"
            )
    return spec.among or tuple(there)
