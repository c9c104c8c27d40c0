"""Which pairs of texts a direction is made from, and how they are read. Plain data, no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.directions.contrast_sets import set_names

__all__ = ["ContrastSpec", "ReadPosition"]

ReadPosition = Literal["last", "first", "mean", "max"] | int
"""Of a text's own tokens; an index counts from the end when it is negative."""


class ContrastSpec(BaseModel):
    """Texts on two sides of a contrast, as pairs or as two heaps."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    builtin: str | None = None
    """A set that saeq carries: formal (over informal) or sentiment (positive over negative)."""
    files: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    """Globs of .jsonl, .csv, .tsv or .parquet files."""
    positive: str = "positive"
    """Column with the text that the direction points to."""
    negative: str = "negative"
    """Column with the text that it points away from."""
    text: str | None = None
    """Instead of two columns: the one with the text, beside `label`."""
    label: str | None = None
    """Column that says which side a text is on."""
    positive_label: str | None = None
    """Its value for the side pointed to; every other value is the other side."""
    validation: float = Field(default=0.25, ge=0, lt=1)
    """Share of the pairs (without pairs: of each side) that no direction is made from."""
    seed: int = Field(default=0, ge=0)
    """Of the split."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.builtin is None) == (self.files is None):
            raise ValueError(
                f"give exactly one of builtin and files; got builtin={self.builtin!r}, "
                f"files={self.files!r}"
            )
        if self.builtin is not None and self.builtin not in set_names():
            raise ValueError(
                f"builtin={self.builtin!r} is unknown; known: {', '.join(set_names())}"
            )
        given = [self.text is not None, self.label is not None, self.positive_label is not None]
        if any(given) and not all(given):
            raise ValueError(
                "text, label and positive_label go together; got "
                f"text={self.text!r}, label={self.label!r}, positive_label={self.positive_label!r}"
            )
        if any(given) and self.builtin is not None:
            raise ValueError("text and label are columns of files; a builtin set has none")
        return self

    @property
    def is_paired(self) -> bool:
        """Whether each positive text has its negative one."""
        return self.text is None
