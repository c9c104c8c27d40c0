"""Batches of a table, checked row by row and gathered into `Rows` without a second copy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from steering.styles.errors import BadStyleData
from steering.styles.row_count import MemoryWatch, check_memory
from steering.styles.rows import Rows, RowsSpec, Vectors
from steering.styles.table_files import NOT_UTF8, TableBatch, batches

__all__ = ["read_array", "read_table"]

logger = logging.getLogger(__name__)

SHOWN = 5
LOGGED_ROWS = 1_000_000
"""After so many rows a line says how far it is."""


class RowNumbers(Sequence[str]):
    """Items of a table without items: each row is its own, and no list of names is kept."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [str(one) for one in range(*row.indices(self._count))]
        return str(range(self._count)[row])


def read_table(spec: RowsSpec, folder: Path) -> Rows:
    """Files or a dataset. Raises BadStyleData with file and row."""
    check_memory(spec, folder)
    named = (spec.text, spec.vector, spec.group, spec.item, spec.corpus)
    wanted = list(dict.fromkeys(name for name in named if name))
    columns: dict[str, list[str]] = {name: [] for name in wanted if name != spec.vector}
    shared: dict[str, dict[str, str]] = {name: {} for name in columns}
    vectors = _Growing()
    watch = MemoryWatch(spec)
    num_read = num_kept = 0
    place = spec.dataset or str(spec.files)
    for batch in batches(spec, wanted, folder):
        place = batch.place
        rows, numbers = _every(batch, spec.every, num_read)
        num_read += batch.rows.num_rows
        for name in columns:
            is_text = name == spec.text
            values = _texts(rows.column(name), name, place, numbers, is_text=is_text)
            own = shared[name]
            # One object a name: a label costs a pointer a row, not a string.
            columns[name] += values if is_text else [own.setdefault(v, v) for v in values]
        if spec.vector is not None and len(numbers):
            column = rows.column(spec.vector)
            vectors.add(_vectors(column, spec.vector, place, numbers, vectors.width))
        num_kept += len(numbers)
        watch.add(rows, len(numbers))
        if num_read // LOGGED_ROWS > (num_read - batch.rows.num_rows) // LOGGED_ROWS:
            logger.info("%s: %d rows read", place, num_read)
    if not num_kept:
        raise BadStyleData(f"{place}: there are no rows")
    return Rows(
        groups=columns[spec.group],
        items=columns[spec.item] if spec.item else RowNumbers(num_kept),
        texts=columns[spec.text] if spec.text else None,
        vectors=vectors.whole(),
        corpora=columns[spec.corpus] if spec.corpus else None,
    )


def read_array(spec: RowsSpec, folder: Path) -> Rows:
    """A .npy file beside a table of labels. Raises BadStyleData."""
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
    check_memory(spec, folder)
    plain = spec.model_copy(update={"files": spec.labels, "labels": None, "every": 1})
    rows = read_table(plain.model_copy(update={"vector": None}), folder)
    if len(rows) != len(vectors):
        raise BadStyleData(
            f"{path} has {len(vectors)} vectors, {spec.labels} has {len(rows)} rows; "
            "there must be one row a vector, in the same order"
        )
    finite = np.asarray(vectors[:: spec.every], dtype=np.float32)
    _refuse_infinite(finite, str(path), range(1, len(vectors) + 1, spec.every))
    if spec.every > 1:
        rows = rows.take(range(0, len(rows), spec.every))
    return replace(rows, vectors=finite)


def _every(batch: TableBatch, every: int, num_read: int) -> tuple[Any, range]:
    """The rows that are kept, and their numbers in their file, from one."""
    count = batch.rows.num_rows
    if every == 1:
        return batch.rows, range(batch.first, batch.first + count)
    start = -num_read % every
    kept = range(start, count, every)
    return batch.rows.take(list(kept)), range(batch.first + start, batch.first + count, every)


class _Growing:
    """One array that grows in place: large blocks are moved by the kernel, not copied."""

    def __init__(self) -> None:
        self._array: Vectors | None = None
        self._used = 0

    @property
    def width(self) -> int | None:
        return None if self._array is None else int(self._array.shape[1])

    def add(self, part: Vectors) -> None:
        if self._array is None:
            self._array = np.empty((len(part), part.shape[1]), dtype=np.float32)
        end = self._used + len(part)
        if end > len(self._array):
            self._array.resize((end + end // 8, part.shape[1]), refcheck=False)
        self._array[self._used : end] = part
        self._used = end

    def whole(self) -> Vectors | None:
        if self._array is not None:
            self._array.resize((self._used, self._array.shape[1]), refcheck=False)
        return self._array


def _texts(column: Any, name: str, place: str, numbers: range, *, is_text: bool) -> list[str]:
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        raise BadStyleData(f"{place}: column {name!r} {NOT_UTF8}") from error
    for number, value in zip(numbers, values, strict=True):
        empty = value is None or (isinstance(value, str) and not value.strip())
        if empty or (is_text and not isinstance(value, str)):
            if isinstance(value, bytes):  # pyarrow's answer to a column that is not UTF-8
                raise BadStyleData(f"{place}, row {number}: column {name!r} {NOT_UTF8}")
            what = "is empty" if empty else f"is {type(value).__name__}, not text"
            raise BadStyleData(
                f"{place}, row {number}: column {name!r} {what}; give every row one, or drop the "
                "row"
            )
    return [value if isinstance(value, str) else str(value) for value in values]


def _vectors(column: Any, name: str, place: str, numbers: range, width: int | None) -> Vectors:
    import pyarrow
    import pyarrow.compute

    kind = pyarrow.types
    column = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    is_list = kind.is_list(column.type) or kind.is_large_list(column.type)
    if not (is_list or kind.is_fixed_size_list(column.type)):
        raise BadStyleData(
            f"{place}: column {name!r} holds {column.type}, not lists of numbers; name another one"
        )
    inner = column.type.value_type
    if not (kind.is_floating(inner) or kind.is_integer(inner) or kind.is_null(inner)):
        raise BadStyleData(f"{place}: column {name!r} holds lists of {inner}, not of numbers")
    lengths = pyarrow.compute.list_value_length(column).to_pylist()
    for number, length in zip(numbers, lengths, strict=True):
        if not length or (width := width or length) != length:
            has = "none" if length is None else f"{length} numbers"
            others = f"those before it {width}; " if width else ""
            raise BadStyleData(
                f"{place}, row {number}: the vector in column {name!r} has {has}, {others}"
                "all must be of one length"
            )
    values = column.flatten().cast(pyarrow.float32(), safe=False)
    flat = values.to_numpy(zero_copy_only=False)  # a missing number becomes NaN
    vectors: Vectors = np.array(flat, dtype=np.float32).reshape(len(lengths), width or 0)
    _refuse_infinite(vectors, place, numbers)
    return vectors


def _refuse_infinite(vectors: Vectors, place: str, numbers: range) -> None:
    # A sum is finite only if all numbers are, and needs no array of truth values.
    suspects = np.flatnonzero(~np.isfinite(vectors.sum(axis=1, dtype=np.float64)))
    bad = [row for row in suspects.tolist() if not np.isfinite(vectors[row]).all()]
    if bad:
        rows = ", ".join(str(numbers[row]) for row in bad[:SHOWN])
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadStyleData(
            f"{place}: vectors with NaN or infinite numbers in rows {rows}{more}; mend or drop them"
        )
