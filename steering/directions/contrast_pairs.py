"""Reads the texts of a contrast and keeps some of them for validation. No torch."""

from __future__ import annotations

import glob
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.directions.contrast_sets import builtin_pairs
from steering.directions.contrast_spec import ContrastSpec
from steering.errors import BadSteeringInput

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ContrastPairs", "Sides", "read_contrast"]

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv"}
MIN_TRAIN = 2
"""Texts on each side that a direction needs at least."""


@dataclass(frozen=True)
class Sides:
    """Texts of a contrast; with pairs, the same place in both lists is a pair."""

    positive: list[str]
    negative: list[str]

    def __len__(self) -> int:
        return len(self.positive) + len(self.negative)


@dataclass(frozen=True)
class ContrastPairs:
    """A contrast, split by pair, so that no sentence is on one side here and on the other there."""

    train: Sides
    validation: Sides
    is_paired: bool


def read_contrast(spec: ContrastSpec, folder: Path = Path()) -> ContrastPairs:
    """Read, check and split.

    Args:
        folder: what relative paths are below.

    Raises:
        BadSteeringInput: a file or column is not there, a text is empty, a label is on one side
            only, or a side has too few texts; with file and row.
    """
    if spec.builtin is not None:
        pairs = builtin_pairs(spec.builtin)
        sides = Sides([one for one, _ in pairs], [other for _, other in pairs])
    else:
        sides = _read_pairs(spec, folder) if spec.is_paired else _read_labelled(spec, folder)
    if spec.is_paired:
        kept, held = _split(list(range(len(sides.positive))), spec)
        parts = [_take(sides, rows, rows) for rows in (kept, held)]
    else:
        ones = _split(list(range(len(sides.positive))), spec)
        others = _split(list(range(len(sides.negative))), spec)
        parts = [_take(sides, one, other) for one, other in zip(ones, others, strict=True)]
    train, validation = parts
    smaller = min(len(train.positive), len(train.negative))
    if smaller < MIN_TRAIN:
        raise BadSteeringInput(
            f"{_origin(spec)}: a side has {smaller} texts to make a direction from, after "
            f"validation={spec.validation:g} of them were kept aside; at least {MIN_TRAIN} are "
            "needed, and from 50 on a direction is steady"
        )
    return ContrastPairs(train, validation, spec.is_paired)


def _split(rows: list[int], spec: ContrastSpec) -> tuple[list[int], list[int]]:
    held = set(random.Random(spec.seed).sample(rows, round(spec.validation * len(rows))))
    return [row for row in rows if row not in held], sorted(held)


def _take(sides: Sides, ones: Sequence[int], others: Sequence[int]) -> Sides:
    return Sides([sides.positive[row] for row in ones], [sides.negative[row] for row in others])


def _read_pairs(spec: ContrastSpec, folder: Path) -> Sides:
    sides = Sides([], [])
    for path, first, batch in _batches(spec, folder, (spec.positive, spec.negative)):
        sides.positive.extend(_texts(batch, spec.positive, path, first))
        sides.negative.extend(_texts(batch, spec.negative, path, first))
    same = sum(one == other for one, other in zip(sides.positive, sides.negative, strict=True))
    if same:
        raise BadSteeringInput(
            f"{_origin(spec)}: {same} of {len(sides.positive)} pairs have the same text on both "
            f"sides (columns {spec.positive!r} and {spec.negative!r}); leave them out"
        )
    return sides


def _read_labelled(spec: ContrastSpec, folder: Path) -> Sides:
    assert spec.text is not None
    assert spec.label is not None
    sides, seen = Sides([], []), Counter[str]()
    for path, first, batch in _batches(spec, folder, (spec.text, spec.label)):
        texts = _texts(batch, spec.text, path, first)
        labels = [str(value) for value in batch.column(spec.label).to_pylist()]
        seen.update(labels)
        for text, label in zip(texts, labels, strict=True):
            side = sides.positive if label == spec.positive_label else sides.negative
            side.append(text)
    if not sides.positive or not sides.negative:
        known = ", ".join(f"{label} ({count})" for label, count in seen.most_common(8))
        raise BadSteeringInput(
            f"{_origin(spec)}: column {spec.label!r} must hold {spec.positive_label!r} and "
            f"something else; it holds {known or 'nothing'}"
        )
    return sides


def _batches(
    spec: ContrastSpec, folder: Path, columns: Sequence[str]
) -> Iterator[tuple[Path, int, pyarrow.RecordBatch]]:
    """(file, number of the first row, rows), a batch at a time."""
    assert spec.files is not None
    patterns = (spec.files,) if isinstance(spec.files, str) else spec.files
    for pattern in patterns:
        matches = sorted(glob.glob(str(folder / pattern), recursive=True))
        if not matches:
            raise BadSteeringInput(
                f"no file matches {str(folder / pattern)!r}; name one that is there"
            )
        for path in map(Path, matches):
            first = 1
            for batch in _rows(path, columns):
                yield path, first, batch
                first += batch.num_rows


def _rows(path: Path, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow
    import pyarrow.csv
    import pyarrow.dataset

    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise BadSteeringInput(
            f"{path}: cannot tell what it holds; known endings: {', '.join(FORMATS)}"
        )
    form: Any = kind
    if path.suffix.lower() == ".tsv":
        options = pyarrow.csv.ParseOptions(delimiter="\t")
        form = pyarrow.dataset.CsvFileFormat(parse_options=options)
    try:
        table = pyarrow.dataset.dataset(path, format=form)
        for name in columns:
            _require(path, name, table.schema.names)
        yield from table.to_batches(columns=list(columns))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:200]
        way_out = "it must be UTF-8, with the same columns in every row"
        raise BadSteeringInput(f"{path} is not readable ({said}); {way_out}") from error


def _require(path: Path, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadSteeringInput(f"{path}: has no column {name!r}; it has {', '.join(names)}.{hint}")


def _texts(batch: pyarrow.RecordBatch, name: str, path: Path, first: int) -> list[str]:
    values: list[Any] = batch.column(name).to_pylist()
    for number, value in enumerate(values, first):
        if not isinstance(value, str) or not value.strip():
            what = "is empty" if value is None or isinstance(value, str) else f"holds {value!r}"
            raise BadSteeringInput(
                f"{path}, row {number}: column {name!r} {what}, not a text; mend or drop the row"
            )
    return values


def _origin(spec: ContrastSpec) -> str:
    if spec.builtin is not None:
        return spec.builtin
    return spec.files if isinstance(spec.files, str) else ", ".join(spec.files or ())
