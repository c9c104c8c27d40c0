"""Scores that a table has already: annotations, or the output of somebody else's model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.catalogue import read_catalogue
from steering.styles.errors import BadStyleData
from steering.styles.rows import RowsSpec, read_all_rows
from steering.styles.scorers.source import Scores, places_of

SHOWN_CHARS = 60


class GivenSpec(BaseModel):
    """A table with a text and its vector of scores in each row."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    files: str | tuple[str, ...] = Field(min_length=1)
    """Globs of .parquet or .jsonl files; or one .npy of vectors beside `labels`."""
    labels: str | None = None
    """With a .npy: a table with a row for each of its vectors, in their order."""
    text: str = "text"
    """Column with the text; scores are looked up by it."""
    vector: str | None = None
    """Column with a list of scores within 0 and 1, an attribute each."""
    catalogue: str
    """File of the catalogue that says what the vectors' places are."""

    @model_validator(mode="after")
    def _has_vectors(self) -> Self:
        if self.vector is None and not self.rows.is_array:
            raise ValueError("name the column with the lists of scores: vector")
        return self

    @property
    def rows(self) -> RowsSpec:
        """How the table is read."""
        return RowsSpec(
            files=self.files,
            labels=self.labels,
            text=self.text,
            vector=self.vector,
            group=self.text,
        )

    def score(self, texts: Sequence[str], attributes: Sequence[str], cache: Path) -> Scores:
        """Look texts up; of a text with several rows the mean is taken."""
        del cache
        catalogue = read_catalogue(Path(self.catalogue))
        place_A = places_of(attributes, catalogue.attributes, f"catalogue {catalogue.name}")
        rows = read_all_rows(self.rows)
        assert rows.vectors is not None
        assert rows.texts is not None
        catalogue.check_length(rows.vectors.shape[1])
        _refuse_outside(rows.vectors)
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(rows.texts):
            rows_of.setdefault(text.strip(), []).append(row)
        unknown = [text for text in texts if text.strip() not in rows_of]
        if unknown:
            raise BadStyleData(
                f"{len(unknown)} of {len(texts)} texts have no given scores, the first is "
                f"{unknown[0][:SHOWN_CHARS]!r}; add rows for them, or use a scorer that reads texts"
            )
        scores_NA = [rows.vectors[rows_of[text.strip()]].mean(axis=0)[place_A] for text in texts]
        return np.stack(scores_NA).astype(np.float32)


def _refuse_outside(values_NA: Scores) -> None:
    bad = np.flatnonzero(((values_NA < 0) | (values_NA > 1)).any(axis=1))
    if len(bad):
        row_A = values_NA[bad[0]]
        worst = float(row_A[np.argmax(np.abs(row_A - 0.5))])
        raise BadStyleData(
            f"given scores must lie within 0 and 1; row {int(bad[0]) + 1} has {worst:g} "
            f"({len(bad)} such rows); rescale them"
        )
