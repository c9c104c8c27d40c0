"""Texts with the score of each style attribute: what a regressor learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.catalogue import Attribute, read_catalogue
from steering.styles.rows import Rows, RowsSpec, read_all_rows

Values = np.ndarray[Any, np.dtype[np.float32]]


class TargetsSpec(BaseModel):
    """Where the texts and their scores are."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    files: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    """Globs of .parquet or .jsonl files; or one .npy of vectors beside `labels`."""
    builtin: Literal["python-docs"] | None = None
    """Paragraphs of Python's manual, scored by what can be counted in them; for demonstrations."""
    labels: str | None = None
    """With a .npy: a table with a row for each of its vectors, in their order."""
    text: str = "text"
    """Column with the text."""
    vector: str | None = None
    """Column with a list of scores, an attribute each."""
    item: str | None = None
    """Column with what rows have in common and what would leak: question, author. Not given:
    every row is an item of its own."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.files is None) == (self.builtin is None):
            raise ValueError("give exactly one of files and builtin")
        if self.builtin is None and self.vector is None and not self.rows.is_array:
            raise ValueError("name the column with the lists of scores (vector: NAME)")
        return self

    @property
    def rows(self) -> RowsSpec:
        """How a table is read; a text is its own group."""
        return RowsSpec(
            files=self.files,
            labels=self.labels,
            text=self.text,
            vector=self.vector,
            item=self.item,
            group=self.text,
        )


@dataclass(frozen=True)
class Targets:
    """The table in memory."""

    rows: Rows
    """With texts."""
    value_NA: Values
    """Scores [rows, attributes], float32."""
    attributes: tuple[Attribute, ...]
    catalogue_sha256: str | None


def read_targets(spec: TargetsSpec, catalogue: str | None = None) -> Targets:
    """Read and check.

    Args:
        catalogue: file that says what the vectors' places are; without one they have numbers.

    Raises:
        BadStyleData: as `read_rows` says, or vectors and catalogue do not fit.
    """
    if spec.builtin is not None:
        from steering.styles.scorers.countable import COUNTABLE, countable_scores

        rows = read_all_rows(RowsSpec(builtin=spec.builtin))
        value_NA = countable_scores(rows.texts or ())
        attributes: Sequence[Attribute] = COUNTABLE
    else:
        rows = read_all_rows(spec.rows)
        assert rows.vectors is not None
        value_NA = rows.vectors
        attributes = [
            Attribute(id=str(place), text=f"attribute {place}")
            for place in range(value_NA.shape[1])
        ]
    sha256 = None
    if catalogue is not None:
        known = read_catalogue(Path(catalogue))
        known.check_length(value_NA.shape[1])
        attributes, sha256 = known.attributes, known.sha256
    return Targets(rows, value_NA, tuple(attributes), sha256)
