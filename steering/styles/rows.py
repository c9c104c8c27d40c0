"""A table of texts or feature vectors with a group and an item each, and where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.errors import BadStyleData

Vectors = np.ndarray[Any, np.dtype[np.float32]]


class RowsSpec(BaseModel):
    """Where the rows are, and what their columns mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    files: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    """Globs of .parquet, .jsonl, .csv or .tsv files; or one .npy of vectors beside `labels`."""
    builtin: Literal["python-docs"] | None = None
    """Paragraphs of Python's manual, which Python carries; a topic is a group."""
    dataset: str | None = None
    """A Hugging Face dataset, streamed: a hub name, or a folder of parquet, jsonl or csv files."""
    config: str | None = None
    """Of a dataset that has several: which one."""
    split: str = "train"
    """Of a dataset. What is trained on and tested on is split from it by item, here."""
    revision: str | None = None
    """Of a dataset on the hub: commit, branch or tag."""
    labels: str | None = None
    """With a .npy: a table with a row for each of its vectors, in their order."""
    text: str | None = None
    """Column with the text."""
    vector: str | None = None
    """Column with a list of numbers."""
    group: str = "group"
    """Column with the group's name."""
    item: str | None = None
    """Column with what rows have in common and what would leak: question, author. Not given:
    every row is an item of its own."""
    corpus: str | None = None
    """Column with the name of the corpus, for numbers by corpus."""
    min_per_group: int = Field(default=8, ge=3)
    """Groups with fewer rows are refused, or left out with `drop_small_groups`."""
    drop_small_groups: bool = False
    every: int = Field(default=1, ge=1)
    """Only every so many rows are read, for a table that is too large."""

    @model_validator(mode="after")
    def _text_or_vector(self) -> Self:
        origins = {"files": self.files, "dataset": self.dataset, "builtin": self.builtin}
        given = [name for name, value in origins.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(origins)}; got {' and '.join(given) or 'none'}"
            )
        if self.dataset is None and (self.config is not None or self.revision is not None):
            raise ValueError("config and revision belong to a dataset; name one, or leave them out")
        if self.is_array:
            if self.labels is None:
                raise ValueError(f"files={self.files!r} are vectors alone; give their labels: FILE")
        elif self.builtin is None and self.text is None and self.vector is None:
            raise ValueError(
                "give the column of the text (text: NAME) or of vectors (vector: NAME)"
            )
        return self

    @property
    def has_text(self) -> bool:
        """Whether rows have a text."""
        return self.text is not None or self.builtin is not None

    @property
    def is_array(self) -> bool:
        """Whether the vectors are in a .npy file."""
        return isinstance(self.files, str) and self.files.endswith(".npy")


@dataclass(frozen=True)
class Rows:
    """The table in memory, all columns of one length."""

    groups: Sequence[str]
    items: Sequence[str]
    texts: Sequence[str] | None = None
    vectors: Vectors | None = None
    """[rows, D], float32, finite."""
    corpora: Sequence[str] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Groups that were left out for being small, with their numbers of rows."""

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, rows: Sequence[int]) -> Rows:
        """Some rows, in that order."""

        def some(values: Sequence[str] | None) -> list[str] | None:
            return None if values is None else [values[row] for row in rows]

        vectors = None if self.vectors is None else self.vectors[np.asarray(rows, dtype=np.int64)]
        return replace(
            self,
            groups=some(self.groups) or [],
            items=some(self.items) or [],
            texts=some(self.texts),
            corpora=some(self.corpora),
            vectors=vectors,
        )


def read_rows(spec: RowsSpec, folder: Path = Path()) -> Rows:
    """Read, check, and leave small groups out if asked to.

    Args:
        folder: what relative paths are below.

    Raises:
        BadStyleData: a file or column is not there, a text is empty, a vector is not finite or of
            another length, a group is small, or there is one only; with file and row.
    """
    return _without_small_groups(read_all_rows(spec, folder), spec)


def spread_rows(labels: Sequence[str], groups: Sequence[str], most: int) -> list[int]:
    """Places of at most so many rows of each of some groups, evenly spread over its rows."""
    rows: list[int] = []
    for group in groups:
        own = [row for row, label in enumerate(labels) if label == group]
        stride = max(1, -(-len(own) // most))
        rows += own[::stride]
    return rows


def read_all_rows(spec: RowsSpec, folder: Path = Path()) -> Rows:
    """As `read_rows`, whatever the sizes of the groups. Raises BadStyleData."""
    if spec.builtin is not None:
        from steering.styles.manual import manual_rows

        return manual_rows()
    from steering.styles.table_reading import read_array, read_table

    return read_array(spec, folder) if spec.is_array else read_table(spec, folder)


def _without_small_groups(rows: Rows, spec: RowsSpec) -> Rows:
    sizes = Counter(rows.groups)
    small = {g: n for g, n in sorted(sizes.items()) if n < spec.min_per_group}
    if small and not spec.drop_small_groups:
        listed = ", ".join(f"{group} ({count})" for group, count in small.items())
        raise BadStyleData(
            f"{len(small)} of {len(sizes)} groups have fewer than min_per_group="
            f"{spec.min_per_group} rows: {listed}; add rows, lower min_per_group, or leave them "
            "out with drop_small_groups: true"
        )
    if len(sizes) - len(small) < 2:
        left = ", ".join(sorted(set(sizes) - set(small))) or "none"
        raise BadStyleData(f"at least two groups are needed; there is {left}")
    if not small:
        return rows
    kept = rows.take([row for row, group in enumerate(rows.groups) if group not in small])
    return replace(kept, dropped=small)
