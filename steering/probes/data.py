"""Labelled text: items with one label, several classes or several labels, and labelled spans.

Shape suffixes: N = texts, L = labels, T = tokens of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.errors import BadSteeringInput

__all__ = ["LabelledSpec", "LabelledTexts", "Span", "Task", "read_all_labelled", "read_labelled"]

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Task = Literal["binary", "multiclass", "multilabel"]


class LabelledSpec(BaseModel):
    """Where labelled text is, and what its columns mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    files: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    """Globs of .parquet, .jsonl, .csv or .tsv files."""
    dataset: str | None = Field(default=None, min_length=1)
    """A Hugging Face dataset: a name on the hub, or a local folder."""
    builtin: Literal["python-docs", "manual-parts"] | None = None
    """Text that Python carries. python-docs: its manual, code blocks against prose, by spans.
    manual-parts: its paragraphs, with the part of the manual they are from as the class."""
    config: str | None = None
    """The dataset's configuration."""
    split: str = "train"
    """The dataset's split to read; how it is dealt into parts is said elsewhere."""
    revision: str | None = None
    """The dataset's branch, tag or commit."""
    text: str = "text"
    """Column with the text."""
    label: str | tuple[str, ...] | None = None
    """Column with the label: 0/1 or true/false (binary), a class, a list of labels; or several
    columns of 0/1, a label each."""
    positive: str | None = None
    """With one column of classes: the class that is asked about, against all others."""
    separator: str | None = Field(default=None, min_length=1)
    """What stands between the labels of a text in one column: "|" for toxic|insult."""
    spans: str | None = None
    """Column with the places in the text that carry a label: a list of {start, end, label}, or of
    [start, end], in characters; as JSON in a .csv. Tokens get their labels from it."""
    item: str | None = None
    """Column with what texts have in common and what would leak: author, question, document. Not
    given: every text is an item of its own."""
    repeats: Literal["refuse", "drop", "one_item"] = "refuse"
    """The same text under several items: refused, later ones left out, or such items made one."""
    max_texts: int | None = Field(default=None, gt=0)
    """Only so many texts from the start; not given: all."""
    min_positives: int = Field(default=10, ge=2)
    """Labels with fewer items that have them (or lack them) are refused."""
    drop_rare_labels: bool = False
    """Leave such labels out instead."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        origins = {"files": self.files, "dataset": self.dataset, "builtin": self.builtin}
        given = [name for name, value in origins.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(origins)}; got {' and '.join(given) or 'none'}"
            )
        if self.builtin is not None:
            return self._refuse_for("builtin", "label", "spans", "item", "positive", "separator")
        if self.label is None and self.spans is None:
            raise ValueError("give the column of the label (label: NAME) or of spans (spans: NAME)")
        if isinstance(self.label, tuple) and (self.positive or self.separator):
            raise ValueError("positive and separator are for one label column; drop them")
        if self.positive is not None and self.separator is not None:
            raise ValueError("positive names one class a text, separator several; drop one of them")
        if self.dataset is None:
            return self._refuse_for("files", "config", "revision")
        return self

    def _refuse_for(self, origin: str, *names: str) -> Self:
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise ValueError(f"{', '.join(given)} does not apply to {origin}; drop it")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        labels = (self.label,) if isinstance(self.label, str) else self.label or ()
        named = [self.text, *labels, self.spans, self.item]
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True)
class Span:
    """Characters start..end of a text, end excluded, that carry a label."""

    start: int
    end: int
    label: int
    """Place of the label in `label_names`."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their labels, all sequences of one length."""

    texts: Sequence[str]
    items: Sequence[str]
    """What texts have in common; splits and intervals go by it."""
    y_NL: Flags
    """Which labels a text has. binary: one column. multiclass: exactly one True a row. Without
    labels of its own, a text has the labels of its spans."""
    label_names: tuple[str, ...]
    task: Task
    spans: Sequence[tuple[Span, ...]] | None = None
    """For each text the places that carry labels; None where the data has no such column."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Labels that were left out for being rare, with their number of texts."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def class_N(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The class of each text of a multiclass task, its place in `label_names`."""
        if self.task != "multiclass":
            raise BadSteeringInput(f"a {self.task} task has no classes; read y_NL")
        return self.y_NL.argmax(axis=1)

    def take(self, rows: Sequence[int]) -> LabelledTexts:
        """Some texts, in that order."""
        return replace(
            self,
            texts=[self.texts[row] for row in rows],
            items=[self.items[row] for row in rows],
            y_NL=self.y_NL[np.asarray(rows, dtype=np.int64)],
            spans=None if self.spans is None else [self.spans[row] for row in rows],
        )

    def token_labels(self, row: int, chars_T2: Sequence[tuple[int, int]]) -> Flags:
        """Labels [T, L] of a text's tokens, given the characters that each stands for.

        A token has a label if a span with it holds any of its characters other than white space
        (byte-level tokenizers put the space before a word into the word's token); a token of white
        space alone, if a span holds any of it. Without spans, every token has the text's labels.
        """
        y_TL = np.zeros((len(chars_T2), len(self.label_names)), dtype=np.bool_)
        if self.spans is None:
            y_TL[:] = self.y_NL[row]
            return y_TL
        text = self.texts[row]
        for place, (start, end) in enumerate(chars_T2):
            piece = text[start:end]
            inner = piece.strip()
            if inner:
                start += len(piece) - len(piece.lstrip())
                end = start + len(inner)
            for span in self.spans[row]:
                if span.start < end and start < span.end:
                    y_TL[place, span.label] = True
        return y_TL


def read_labelled(spec: LabelledSpec, folder: Path = Path()) -> LabelledTexts:
    """Read, check, and leave rare labels out if asked to.

    Args:
        folder: what relative paths are below.

    Raises:
        BadSteeringInput: a file or column is not there, a text or label is empty or of the wrong
            kind, a span is outside of its text, a text is under several items, or a label is rare
            (the message holds the label profile).
    """
    from steering.probes.profile import without_rare_labels

    labelled = read_all_labelled(spec, folder)
    return without_rare_labels(labelled, spec.min_positives, drop=spec.drop_rare_labels)


def read_all_labelled(spec: LabelledSpec, folder: Path = Path()) -> LabelledTexts:
    """As `read_labelled`, whatever the counts of the labels. Raises BadSteeringInput."""
    from steering.probes.data_builtin import BUILTIN
    from steering.probes.data_files import read_dataset, read_files
    from steering.probes.data_labels import labelled_from_rows
    from steering.probes.data_repeats import without_repeats

    if spec.builtin is not None:
        labelled = BUILTIN[spec.builtin]()
        kept = labelled.take(range(min(len(labelled), spec.max_texts or len(labelled))))
        return without_repeats(kept, spec.repeats)
    if spec.files is not None:
        rows = read_files(spec.files, spec.columns, folder)
    else:
        assert spec.dataset is not None
        place = folder / Path(spec.dataset).expanduser()
        rows = read_dataset(
            str(place) if place.exists() else spec.dataset,
            spec.columns,
            config=spec.config,
            split=spec.split,
            revision=spec.revision,
        )
    return without_repeats(labelled_from_rows(spec, rows), spec.repeats)
