"""From values of columns to labels: what a label column may hold, and what its spans say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.data import LabelledSpec, LabelledTexts, Span, Task
from steering.probes.data_files import NumberedRow

__all__ = ["labelled_from_rows"]

MAX_CLASSES = 1000
_FLAGS: Mapping[str, bool] = {
    "0": False,
    "1": True,
    "0.0": False,
    "1.0": True,
    "false": False,
    "true": True,
}
RawSpan = tuple[int, int, str]


@dataclass
class _Columns:
    texts: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    labels: list[frozenset[str]] = field(default_factory=list)
    """For each text the labels it has; empty while there is no label column."""
    spans: list[list[RawSpan]] = field(default_factory=list)


def labelled_from_rows(spec: LabelledSpec, rows: Iterable[NumberedRow]) -> LabelledTexts:
    """Put the rows together. Raises BadSteeringInput with the row that is wrong."""
    columns = _Columns()
    values: list[tuple[str, Any]] = []
    for where, row in islice(rows, spec.max_texts):
        text = _text(row[spec.text], spec.text, where)
        columns.texts.append(text)
        item = row[spec.item] if spec.item else len(columns.texts) - 1
        columns.items.append(_name(item, spec.item or "item", where))
        if isinstance(spec.label, tuple):
            having = [c for c in spec.label if _flag(row[c], c, where)]
            columns.labels.append(frozenset(having))
        elif spec.label is not None:
            values.append((where, row[spec.label]))
        if spec.spans is not None:
            columns.spans.append(_spans(row[spec.spans], spec.spans, text, where))
    if not columns.texts:
        raise BadSteeringInput("the data has no rows; name files or a split that have some")
    task: Task = "multilabel"
    names: list[str] = list(spec.label) if isinstance(spec.label, tuple) else []
    if isinstance(spec.label, str):
        task, names, columns.labels = _of_one_column(spec, spec.label, values)
    return _put_together(spec, columns, task, names)


def _put_together(
    spec: LabelledSpec, columns: _Columns, task: Task, names: list[str]
) -> LabelledTexts:
    in_spans = sorted({label for spans in columns.spans for _, _, label in spans})
    if spec.label is None:
        if not in_spans:
            raise BadSteeringInput(f"column {spec.spans!r} holds no span; nothing is labelled")
        names = in_spans
        columns.labels = [frozenset(label for _, _, label in spans) for spans in columns.spans]
        task = "binary" if len(names) == 1 else "multilabel"
    elif unknown := set(in_spans) - set(names):
        if len(names) > 1 or in_spans != [spec.spans]:
            raise BadSteeringInput(
                f"spans carry labels that no text has: {', '.join(sorted(unknown))}; labels are "
                f"{', '.join(names)}; name spans alike, or read spans without label:"
            )
        in_spans = names  # spans that say no label are of the only one there is
    place = {name: number for number, name in enumerate(names)}
    y_NL = np.zeros((len(columns.texts), len(names)), dtype=np.bool_)
    for row, having in enumerate(columns.labels):
        for label in having:
            y_NL[row, place[label]] = True
    spans = None
    if spec.spans is not None:
        spans = [
            tuple(Span(start, end, place.get(label, 0)) for start, end, label in some)
            for some in columns.spans
        ]
    return LabelledTexts(columns.texts, columns.items, y_NL, tuple(names), task, spans)


def _of_one_column(
    spec: LabelledSpec, column: str, values: Sequence[tuple[str, Any]]
) -> tuple[Task, list[str], list[frozenset[str]]]:
    """What a column of labels means, from what it holds."""
    if spec.separator is not None or any(isinstance(value, list) for _, value in values):
        several = [_several(value, column, where, spec.separator) for where, value in values]
        return "multilabel", sorted(frozenset().union(*several)), several
    named = [_name(value, column, where) for where, value in values]
    classes = sorted(set(named))
    if spec.positive is not None:
        if spec.positive not in classes:
            known = ", ".join(classes[:20])
            raise BadSteeringInput(
                f"positive={spec.positive!r} is no value of column {column!r}; it has {known}"
            )
        return "binary", [spec.positive], [frozenset({n} & {spec.positive}) for n in named]
    if all(name.lower() in _FLAGS for name in classes):
        flags = [_FLAGS[name.lower()] for name in named]
        return "binary", [column], [frozenset({column} if one else ()) for one in flags]
    if len(classes) == 2:
        raise BadSteeringInput(
            f"column {column!r} has two values, {classes[0]} and {classes[1]}; say which of them "
            f"is asked about: positive: {classes[1]}"
        )
    if len(classes) > MAX_CLASSES:
        raise BadSteeringInput(
            f"column {column!r} has {len(classes)} values, such as {classes[0]!r}; up to "
            f"{MAX_CLASSES} can be classes: name a column of labels"
        )
    return "multiclass", classes, [frozenset({name}) for name in named]


def _text(value: Any, column: str, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    what = f"is {type(value).__name__}, not text" if value and not isinstance(value, str) else ""
    raise BadSteeringInput(
        f"{where}: column {column!r} {what or 'is empty'}; give every row a text, or drop the row"
    )


def _name(value: Any, column: str, where: str) -> str:
    """A class or item as text; 1, 1.0 and True are the same thing in different file formats."""
    is_missing = value is None or value != value or (isinstance(value, str) and not value.strip())
    if is_missing or isinstance(value, list | dict):
        what = "is empty" if is_missing else f"holds {type(value).__name__}"
        raise BadSteeringInput(
            f"{where}: column {column!r} {what}; give every row one value, or drop the row"
        )
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _flag(value: Any, column: str, where: str) -> bool:
    name = _name(value, column, where).lower()
    if name not in _FLAGS:
        raise BadSteeringInput(
            f"{where}: column {column!r} holds {value!r}; each of several label columns must be 0 "
            "or 1"
        )
    return _FLAGS[name]


def _several(value: Any, column: str, where: str, separator: str | None) -> frozenset[str]:
    if isinstance(value, str) and separator is not None:
        return frozenset(part.strip() for part in value.split(separator) if part.strip())
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise BadSteeringInput(
            f"{where}: column {column!r} holds {value!r} where other rows hold lists of labels; "
            "make all of them lists"
        )
    return frozenset(_name(one, column, where) for one in value)


def _spans(value: Any, column: str, text: str, where: str) -> list[RawSpan]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except json.JSONDecodeError as error:
            raise BadSteeringInput(f"{where}: column {column!r} is no JSON: {error}") from error
    spans = []
    for one in value or []:
        try:
            if isinstance(one, dict):
                start, end, label = one["start"], one["end"], one.get("label")
            else:
                start, end, label = (*one, None)[:3]
            start, end = int(start), int(end)
        except (TypeError, ValueError, KeyError) as error:
            raise BadSteeringInput(
                f"{where}: column {column!r} holds {one!r}; a span is {{start, end, label}} or "
                "[start, end]"
            ) from error
        if not 0 <= start < end <= len(text):
            raise BadSteeringInput(
                f"{where}: the span {start}..{end} is not inside the text, which has {len(text)} "
                "characters; spans count characters from 0, the end excluded"
            )
        spans.append((start, end, column if label is None else str(label)))
    return spans
