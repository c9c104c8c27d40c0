"""A table of texts or feature vectors with a group and an item each, read in bounded memory."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.errors import BadStyleData

if TYPE_CHECKING:
    import pyarrow

Vectors = np.ndarray[Any, np.dtype[np.float32]]

BATCH_ROWS = 8192
FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
SHOWN = 5
NOT_UTF8 = "is not UTF-8 text; `iconv -t UTF-8` converts other encodings"


class RowsSpec(BaseModel):
    """Where the rows are, and what their columns mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    files: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    """Globs of .parquet, .jsonl, .csv or .tsv files; or one .npy of vectors beside `labels`."""
    builtin: Literal["python-docs"] | None = None
    """Paragraphs of Python's manual, which Python carries; a topic is a group."""
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

    @model_validator(mode="after")
    def _text_or_vector(self) -> Self:
        if (self.files is None) == (self.builtin is None):
            raise ValueError("give exactly one of files and builtin")
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
    if spec.builtin is not None:
        from steering.styles.manual import manual_rows

        rows = manual_rows()
    else:
        rows = _read_array(spec, folder) if spec.is_array else _read_table(spec, folder)
    return _without_small_groups(rows, spec)


def bytes_of(num_rows: int, width: int, mean_chars: float = 0.0) -> int:
    """Memory that so many rows take, to be said beforehand: vectors, texts, labels."""
    return int(num_rows * (4 * width + (60 + mean_chars if mean_chars else 0) + 3 * 8))


def _read_table(spec: RowsSpec, folder: Path) -> Rows:
    assert spec.files is not None
    paths = _paths(spec.files, folder)
    wanted = [c for c in (spec.text, spec.vector, spec.group, spec.item, spec.corpus) if c]
    columns: dict[str, list[str]] = {c: [] for c in wanted if c != spec.vector}
    parts: list[Vectors] = []
    for path in paths:
        first = 1
        for batch in _batches(path, wanted):
            for name in columns:
                columns[name] += _texts(batch, name, path, first, is_text=name == spec.text)
            if spec.vector is not None:
                width = parts[0].shape[1] if parts else None
                parts.append(_vectors(batch, spec.vector, path, first, width))
            first += batch.num_rows
    groups = columns[spec.group]
    if not groups:
        raise BadStyleData(f"{_named(paths)}: there are no rows")
    return Rows(
        groups=groups,
        items=columns[spec.item] if spec.item else [str(row) for row in range(len(groups))],
        texts=columns[spec.text] if spec.text else None,
        vectors=np.concatenate(parts) if parts else None,
        corpora=columns[spec.corpus] if spec.corpus else None,
    )


def _read_array(spec: RowsSpec, folder: Path) -> Rows:
    assert isinstance(spec.files, str)
    assert spec.labels is not None
    path = folder / spec.files
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadStyleData(f"{path}: cannot be read as an array of numbers ({error})") from error
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.number):
        shape = f"shape {vectors.shape}, {vectors.dtype}"
        raise BadStyleData(f"{path}: must hold numbers [rows, width]; it has {shape}")
    plain = spec.model_copy(update={"files": spec.labels, "labels": None, "vector": None})
    rows = _read_table(plain, folder)
    if len(rows) != len(vectors):
        raise BadStyleData(
            f"{path} has {len(vectors)} vectors, {spec.labels} has {len(rows)} rows; "
            "there must be one row a vector, in the same order"
        )
    finite = np.asarray(vectors, dtype=np.float32)
    _refuse_infinite(finite, path, 1)
    return replace(rows, vectors=finite)


def _paths(files: str | tuple[str, ...], folder: Path) -> list[Path]:
    patterns = (files,) if isinstance(files, str) else files
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(glob.glob(str(folder / pattern), recursive=True))
        if not matches:
            raise BadStyleData(f"no file matches {str(folder / pattern)!r}; name one that is there")
        found += [Path(match) for match in matches]
    return found


def _batches(path: Path, wanted: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """Batches of a file's columns. Nothing of the file but one batch is in memory."""
    import pyarrow
    import pyarrow.dataset

    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join([*FORMATS, ".npy"])
        raise BadStyleData(f"{path}: cannot tell what it holds; known endings: {known}")
    form: Any = kind
    if path.suffix.lower() == ".tsv":
        import pyarrow.csv

        options = pyarrow.csv.ParseOptions(delimiter="\t")
        form = pyarrow.dataset.CsvFileFormat(parse_options=options)
    try:
        table = pyarrow.dataset.dataset(path, format=form)
        for name in wanted:
            _require(path, name, table.schema.names)
        yield from table.to_batches(columns=list(wanted), batch_size=BATCH_ROWS)
    except pyarrow.ArrowException as error:
        raise BadStyleData(f"{path}: {_plain(error)}") from error
    except UnicodeDecodeError as error:
        raise BadStyleData(f"{path}: {NOT_UTF8}") from error


def _plain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "UTF8" in text or "UTF-8" in text or "utf8" in text:
        return NOT_UTF8
    return f"is not readable ({text[:200]})"


def _require(path: Path, name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadStyleData(f"{path}: has no column {name!r}; it has {', '.join(names)}.{hint}")


def _texts(
    batch: pyarrow.RecordBatch, name: str, path: Path, first: int, *, is_text: bool
) -> list[str]:
    values = batch.column(name).to_pylist()
    for number, value in enumerate(values, first):
        empty = value is None or (isinstance(value, str) and not value.strip())
        if empty or (is_text and not isinstance(value, str)):
            if isinstance(value, bytes):  # pyarrow's answer to a column that is not UTF-8
                raise BadStyleData(f"{path}, row {number}: column {name!r} {NOT_UTF8}")
            what = "is empty" if empty else f"is {type(value).__name__}, not text"
            raise BadStyleData(
                f"{path}, row {number}: column {name!r} {what}; give every row one, or drop the row"
            )
    return [value if isinstance(value, str) else str(value) for value in values]


def _vectors(
    batch: pyarrow.RecordBatch, name: str, path: Path, first: int, width: int | None
) -> Vectors:
    import pyarrow

    column = batch.column(name)
    if not (pyarrow.types.is_list(column.type) or pyarrow.types.is_fixed_size_list(column.type)):
        raise BadStyleData(
            f"{path}: column {name!r} holds {column.type}, not lists of numbers; name another one"
        )
    values = column.to_pylist()
    for number, value in enumerate(values, first):
        if value is None or (width := width or len(value)) != len(value) or not value:
            has = "none" if value is None else f"{len(value)} numbers"
            raise BadStyleData(
                f"{path}, row {number}: the vector in column {name!r} has {has}, those before it "
                f"{width}; all must be of one length"
            )
    try:
        vectors = np.asarray(values, dtype=np.float32).reshape(len(values), width or 0)
    except (TypeError, ValueError) as error:
        raise BadStyleData(
            f"{path}: column {name!r} holds lists of something else: {error}"
        ) from error
    _refuse_infinite(vectors, path, first)
    return vectors


def _refuse_infinite(vectors: Vectors, path: Path, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        rows = ", ".join(str(first + row) for row in bad[:SHOWN].tolist())
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadStyleData(
            f"{path}: vectors with NaN or infinite numbers in rows {rows}{more}; mend or drop them"
        )


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


def _named(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
