"""How much memory a table takes, worked out before it is read: from headers and a first batch.

No torch. What cannot be known beforehand (a dataset on the hub) is watched while it is read.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.styles.errors import BadStyleData

if TYPE_CHECKING:
    from steering.styles.rows import RowsSpec

__all__ = ["MemoryWatch", "TableSize", "check_memory", "free_bytes", "planned_bytes", "size_of"]

logger = logging.getLogger(__name__)

GIB = 2**30
LEAST_BYTES = 256 * 2**20
"""Planned for a table whatever it holds."""
UNKNOWN_BYTES = 512 * 2**20
"""Planned for a table that is not on this machine."""
SAID_FROM_BYTES = GIB
"""Larger tables say beforehand what they take."""
COPIES_OF_VECTORS = 2
"""Alive while a table is split: what was read, and the parts."""
STRING_BYTES = 57
"""Of a Python string beside its characters, with the list's pointer."""
LABEL_BYTES = 3 * 8
"""Group, item and corpus of a row, whose strings are shared."""
SAMPLE_LINES = 200


@dataclass(frozen=True)
class TableSize:
    """What is known of a table before it is read."""

    num_rows: int
    is_exact: bool
    """Whether rows were counted; else they follow from the files' sizes."""
    width: int
    """Numbers of a given vector, 0 where there is none."""
    text_chars: float
    """Mean length of a text, 0 where there is none."""

    def bytes_with(self, features: int = 0) -> int:
        """Memory at the peak, with an encoder's outputs of so many numbers if there are any."""
        text = STRING_BYTES + self.text_chars if self.text_chars else 0.0
        vectors = COPIES_OF_VECTORS * 4 * max(self.width, features)
        return int(self.num_rows * (vectors + text + LABEL_BYTES))


def planned_bytes(spec: RowsSpec, features: int) -> int:
    """For a plan: memory of the table with features of an encoder (0 for given vectors)."""
    size = _size_or_none(spec, Path())
    if size is None:
        return LEAST_BYTES if spec.builtin else UNKNOWN_BYTES
    return max(LEAST_BYTES, size.bytes_with(features))


def check_memory(spec: RowsSpec, folder: Path) -> None:
    """Say what a large table will take; refuse one that this machine has no room for.

    Raises:
        BadStyleData: with the numbers and the way out.
    """
    size = _size_or_none(spec, folder)
    if size is None:
        return
    needed, free = size.bytes_with(), free_bytes()
    if needed > free:
        raise BadStyleData(_too_large(size.num_rows, size.width, needed, free, spec.every))
    if needed > SAID_FROM_BYTES:
        logger.warning(
            "%s%d rows%s: %.1f GiB of memory while they are read and split, of %.1f free",
            "" if size.is_exact else "about ",
            size.num_rows,
            f" of {size.width} numbers" if size.width else "",
            needed / GIB,
            free / GIB,
        )


class MemoryWatch:
    """Refuses a table that outgrows the memory while it is read, before the kernel does."""

    def __init__(self, spec: RowsSpec) -> None:
        self._spec = spec
        self._free = free_bytes()
        self._bytes = 0
        self._rows = 0

    def add(self, batch: Any, num_rows: int) -> None:
        """Count a batch. Raises BadStyleData."""
        self._rows += num_rows
        self._bytes += COPIES_OF_VECTORS * batch.nbytes + num_rows * LABEL_BYTES
        if self._bytes > self._free:
            free, rows, spec = self._free, self._rows, self._spec
            raise BadStyleData(
                f"after {rows} rows {self._bytes / GIB:.1f} GiB are needed, and {free / GIB:.1f} "
                f"GiB were free: {_way_out(2 * spec.every)}"
            )


def size_of(spec: RowsSpec, folder: Path = Path()) -> TableSize | None:
    """Rows and their size from headers and first lines; None for what is not on this machine.

    Raises OSError, ValueError for a file that is not what it is called: reading it says more.
    """
    from steering.styles.table_files import paths_of

    if spec.is_array:
        return _array_size(folder / str(spec.files), spec)
    if spec.files is None:
        return None
    paths = paths_of(spec.files, folder)
    sizes = [_file_size(path, path.stat().st_mtime_ns, spec.vector, spec.text) for path in paths]
    rows = sum(size.num_rows for size in sizes)
    chars = sum(size.text_chars * size.num_rows for size in sizes) / max(1, rows)
    exact = all(size.is_exact for size in sizes)
    return TableSize(rows // spec.every, exact, max(size.width for size in sizes), chars)


def free_bytes() -> int:
    """Memory that new arrays may take, by kernel and control group."""
    if not Path("/proc/meminfo").exists():
        return sys.maxsize  # not Linux: nothing is known, and nothing is refused
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


def _size_or_none(spec: RowsSpec, folder: Path) -> TableSize | None:
    try:
        return size_of(spec, folder)
    except (OSError, ValueError):
        return None  # whoever reads it says what is wrong, with its place


def _too_large(num_rows: int, width: int, needed: int, free: int, every: int) -> str:
    what = f"{num_rows} rows of {width} numbers" if width else f"{num_rows} rows"
    times = -(-needed // max(1, free)) * every
    return (
        f"{what} need {needed / GIB:.1f} GiB of memory while they are read and split, and "
        f"{free / GIB:.1f} GiB are free here: {_way_out(times)}"
    )


def _way_out(every: int) -> str:
    return f"take fewer (data.every: {every} reads one row in {every}), or a machine with more"


def _array_size(path: Path, spec: RowsSpec) -> TableSize:
    import numpy as np

    rows, width = np.load(path, mmap_mode="r", allow_pickle=False).shape
    return TableSize(rows // spec.every, True, width, 0.0)


@lru_cache(maxsize=256)
def _file_size(path: Path, changed_ns: int, vector: str | None, text: str | None) -> TableSize:
    del changed_ns
    if path.suffix.lower() == ".parquet":
        return _parquet_size(path, vector, text)
    with path.open("rb") as file:
        lines = list(itertools.islice(file, SAMPLE_LINES))
    if not lines:
        return TableSize(0, True, 0, 0.0)
    is_whole = len(lines) < SAMPLE_LINES
    mean = sum(map(len, lines)) / len(lines)
    rows = len(lines) if is_whole else int(path.stat().st_size / mean)
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return TableSize(rows, is_whole, 0, mean if text else 0.0)
    first = json.loads(lines[0])
    width = _length(first.get(vector))
    chars = len(str(first.get(text) or "")) if text else 0
    return TableSize(rows, is_whole, width, float(chars))


def _length(vector: Any) -> int:
    return len(vector) if isinstance(vector, list) else 0


def _parquet_size(path: Path, vector: str | None, text: str | None) -> TableSize:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        rows, width, chars = file.metadata.num_rows, 0, 0.0
        if rows and vector in file.schema_arrow.names:
            column = next(file.iter_batches(batch_size=1, columns=[vector])).column(0)
            width = _length(column.to_pylist()[0])
        if rows and text in file.schema_arrow.names:
            some = next(file.iter_batches(batch_size=SAMPLE_LINES, columns=[text])).column(0)
            chars = some.nbytes / len(some)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
    return TableSize(rows, True, width, chars)
