"""Rows of .parquet, .jsonl, .csv and .tsv files, or of a Hugging Face dataset, by column."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from steering.errors import BadSteeringInput

__all__ = ["HUB_WAY_OUT", "read_dataset", "read_files"]

BATCH_ROWS = 8192
FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
NOT_UTF8 = "is not UTF-8 text; `iconv -t UTF-8` converts other encodings"
HUB_WAY_OUT = "give a local folder, or files: of a copy"

NumberedRow = tuple[str, Mapping[str, Any]]
"""Where the row is, for messages; and its values by column."""


def read_files(
    files: str | Sequence[str], columns: Sequence[str], folder: Path
) -> Iterator[NumberedRow]:
    """Rows of all files that match, one batch in memory at a time.

    Raises:
        BadSteeringInput: no file matches, its ending says nothing, a column is not there, or it
            cannot be read.
    """
    for path in _paths((files,) if isinstance(files, str) else files, folder):
        number = 1
        for batch in _batches(path, columns):
            values = {name: batch.column(name).to_pylist() for name in columns}
            for place in range(batch.num_rows):
                where = f"{path}, row {number}"
                yield where, {name: values[name][place] for name in columns}
                number += 1


def read_dataset(
    name: str,
    columns: Sequence[str],
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
) -> Iterator[NumberedRow]:
    """Rows of a Hugging Face dataset, streamed from the hub or read from a local folder.

    Raises:
        BadSteeringInput: it cannot be had, or a column is not there.
    """
    from datasets import load_dataset

    path = Path(name).expanduser()
    commit = None if path.exists() else _commit(name, revision)
    try:
        rows = load_dataset(
            str(path) if commit is None else name,
            config,
            split=split,
            revision=commit,
            streaming=True,
        )
        names = _class_names(rows.features, columns)
        for number, row in enumerate(rows, 1):
            if number == 1:
                for column in columns:
                    _require(f"dataset {name!r}", column, list(row))
            values = {
                one: _named(row[one], names[one]) if one in names else row[one] for one in columns
            }
            yield f"dataset {name!r}, row {number}", values
    except BadSteeringInput:
        raise
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise BadSteeringInput(
            f"dataset {name!r} (config {config!r}, split {split!r}) cannot be had: {said}; "
            f"{HUB_WAY_OUT}"
        ) from error


def _class_names(features: Any, columns: Sequence[str]) -> dict[str, list[str]]:
    """Of columns that hold numbers of named classes."""
    from datasets import ClassLabel

    kinds = features or {}
    return {
        column: list(kinds[column].names)
        for column in columns
        if isinstance(kinds.get(column), ClassLabel)
    }


def _named(number: int | None, names: Sequence[str]) -> str | None:
    """A class's name; datasets writes -1 where there is no label."""
    return None if number is None or number < 0 else names[number]


def _commit(name: str, revision: str | None) -> str:
    from sae.hub import NotOnHub, hub_commit

    try:
        commit = hub_commit("dataset", name, revision)
    except NotOnHub as error:
        raise BadSteeringInput(f"dataset {name!r} cannot be had: {error}; {HUB_WAY_OUT}") from None
    if commit is None:
        raise BadSteeringInput(
            f"dataset {name!r} cannot be had: the hub cannot be reached from here; {HUB_WAY_OUT}"
        )
    return commit


def _paths(patterns: Sequence[str], folder: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(glob.glob(str(folder / Path(pattern).expanduser()), recursive=True))
        if not matches:
            raise BadSteeringInput(
                f"no file matches {str(folder / pattern)!r}; name one that is there"
            )
        found += [Path(match) for match in matches]
    return found


def _batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    import pyarrow
    import pyarrow.csv
    import pyarrow.dataset

    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise BadSteeringInput(
            f"{path}: cannot tell what it holds; known endings: {', '.join(FORMATS)}"
        )
    form: Any = kind
    if kind == "csv":
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        form = pyarrow.dataset.CsvFileFormat(
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        )
    try:
        table = pyarrow.dataset.dataset(path, format=form)
        for name in columns:
            _require(str(path), name, table.schema.names)
        yield from table.to_batches(columns=list(columns), batch_size=BATCH_ROWS)
    except pyarrow.ArrowException as error:
        said = " ".join(str(error).split())
        is_encoding = "UTF8" in said or "UTF-8" in said or "utf8" in said
        reason = NOT_UTF8 if is_encoding else f"is not readable ({said[:200]})"
        raise BadSteeringInput(f"{path}: {reason}") from error
    except UnicodeDecodeError as error:
        raise BadSteeringInput(f"{path}: {NOT_UTF8}") from error


def _require(where: str, name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadSteeringInput(f"{where}: has no column {name!r}; it has {', '.join(names)}.{hint}")
