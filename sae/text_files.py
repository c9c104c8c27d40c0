"""Readers of text files: plain text, JSON lines and parquet, in bounded memory."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from sae.sources.base import CHUNK_CHARS, Document, chunks_of
from sae.stream_errors import BadData

MAX_UNDECODABLE = 0.01
"""Share of characters that may be undecodable before a file counts as binary."""
MAX_LINE_CHARS = 128 << 20
"""A longer JSON line is refused: a line has to be parsed whole."""
PARQUET_BATCH_ROWS = 64

Reader = Callable[[Path, str], Iterator[Document]]


def read_plain(path: Path, column: str) -> Iterator[Document]:
    """Read one document a file. Raises BadData for a binary file."""
    del column
    yield _plain_chunks(path)


def read_json_lines(path: Path, column: str) -> Iterator[Document]:
    """Read one document a line. Raises BadData with file and line for a malformed one."""
    with _refuse_broken(path), _open_text(path) as file:
        watch = _BinaryWatch(path)
        number = 0
        while line := file.readline(MAX_LINE_CHARS + 1):
            number += 1
            if len(line) > MAX_LINE_CHARS:
                raise BadData(
                    f"{path}:{number}: the line is longer than {MAX_LINE_CHARS >> 20} MiB; "
                    "split it, or give plain text as .txt"
                )
            watch.look(line)
            if line.strip():
                yield chunks_of(_text_in_line(path, number, line, column))
        watch.end()


def read_parquet(path: Path, column: str) -> Iterator[Document]:
    """Read one document a row. Raises BadData if the column is not there or not text."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            _require_column(str(path), column, table.schema_arrow.names)
            for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=[column]):
                for text in batch.column(0).to_pylist():
                    if text is not None and not isinstance(text, str):
                        raise BadData(
                            f"{path}: column {column!r} holds {type(text).__name__}, not text; set "
                            "`column:` to one that does"
                        )
                    if text:
                        yield chunks_of(text)
    except pyarrow.ArrowException as error:
        raise BadData(f"{path}: is not a readable parquet file ({error})") from error


READERS: Mapping[str, Reader] = {
    ".txt": read_plain,
    ".text": read_plain,
    ".md": read_plain,
    ".rst": read_plain,
    ".jsonl": read_json_lines,
    ".json": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}


def reader_for(path: Path) -> Reader:
    """Pick the reader by the file's ending. Raises BadData that lists the known endings."""
    endings = [ending.lower() for ending in path.suffixes]
    is_gzip = bool(endings) and endings[-1] == ".gz"
    ending = "".join(endings[-2:-1] if is_gzip else endings[-1:])
    if ending not in READERS or (is_gzip and ending == ".parquet"):
        raise BadData(
            f"{path}: cannot tell what a file ending in {''.join(endings[-2:]) or 'nothing'!r} "
            f"holds; known endings: {', '.join(READERS)}, all but parquet also with .gz"
        )
    return READERS[ending]


class _BinaryWatch:
    """Refuses a file once it looks binary: a NUL, or more than 1% undecodable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_chars = 0
        self._num_undecodable = 0

    def look(self, text: str) -> None:
        self._num_chars += len(text)
        self._num_undecodable += text.count("\ufffd")
        if "\0" in text:
            raise BadData(
                f"{self._path}: is not text (NUL bytes); give UTF-8 text "
                "(`iconv -t UTF-8` converts other encodings)"
            )
        if self._num_chars >= CHUNK_CHARS:
            self.end()

    def end(self) -> None:
        if self._num_undecodable > MAX_UNDECODABLE * self._num_chars:
            share = self._num_undecodable / self._num_chars
            raise BadData(
                f"{self._path}: is not UTF-8 text ({share:.0%} of it cannot be decoded); "
                "give UTF-8 text (`iconv -t UTF-8` converts other encodings)"
            )


def _plain_chunks(path: Path) -> Iterator[str]:
    watch = _BinaryWatch(path)
    with _refuse_broken(path), _open_text(path) as file:
        while chunk := file.read(CHUNK_CHARS):
            watch.look(chunk)
            if len(chunk) < CHUNK_CHARS:
                watch.end()
            yield chunk


def _open_text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace")
    return path.open(encoding="utf-8-sig", errors="replace")


@contextmanager
def _refuse_broken(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path}: cannot be read ({error})") from error


def _text_in_line(path: Path, number: int, line: str, column: str) -> str:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        if number == 1 and line.lstrip().startswith("["):
            raise BadData(_is_array(path)) from None
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise BadData(f"{path}:{number}: is not valid JSON ({reason}); mend the line") from None
    if number == 1 and isinstance(row, list):
        raise BadData(_is_array(path))
    if not isinstance(row, dict):
        raise BadData(
            f"{path}:{number}: holds a JSON {type(row).__name__}; each line has to be an object "
            f"with the text under {column!r}"
        )
    _require_column(f"{path}:{number}", column, list(row))
    text: Any = row[column]
    if text is not None and not isinstance(text, str):
        raise BadData(
            f"{path}:{number}: {column!r} holds {type(text).__name__}, not text; set `column:` to "
            "one that does"
        )
    return text or ""


def _is_array(path: Path) -> str:
    return f"{path}: is one JSON array; write one object a line (`jq -c '.[]'` does it)"


def _require_column(place: str, column: str, columns: Sequence[str]) -> None:
    if column in columns:
        return
    near = get_close_matches(column, columns, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "set `column:` to one of them"
    raise BadData(
        f"{place}: has no column {column!r}; its columns are "
        f"{', '.join(map(repr, columns)) or 'none'}; {hint}"
    )
