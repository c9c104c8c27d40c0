"""The user's own files: plain text, JSON lines and parquet, found by globs."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from sae.file_fingerprint import fingerprint_files
from sae.sources.base import Document, Source
from sae.stream_errors import BadData
from sae.text_files import READERS, reader_for

logger = logging.getLogger(__name__)

GLOB_CHARS = "*?["


class Files(Source):
    """Files in the order of the globs, and of their names within one glob."""

    name: ClassVar[str] = "files"

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The files that hold text. Raises BadData for a glob that matches nothing."""
        found = dict.fromkeys(path for pattern in self._globs() for path in _matches(pattern))
        for path in found:
            reader_for(path)
        with_text = tuple(path for path in found if path.stat().st_size > 0)
        if not with_text:
            raise BadData(f"{', '.join(map(str, found))}: nothing in it; give a file with text")
        for path in found:
            if path not in with_text:
                logger.warning("%s is empty and is skipped", path)
        return with_text

    def documents(self) -> Iterator[Document]:
        """Walk over the documents of all files. Raises BadData for one that is not usable."""
        for path in self.paths:
            yield from reader_for(path)(path, self.data.column)

    def fingerprint(self) -> dict[str, Any]:
        """Globs, column, count, size, and a hash of names, sizes and both ends of each file."""
        return {
            "source": self.name,
            "files": [*self._globs()],
            "column": self.data.column,
            "num_files": len(self.paths),
            "bytes": sum(path.stat().st_size for path in self.paths),
            "sha256": fingerprint_files(self.paths),
        }

    def stamp(self) -> dict[str, Any]:
        """Path, size and time of change of each file, and the column."""
        states = [(str(path.resolve()), path.stat()) for path in self.paths]
        files = [[path, state.st_size, state.st_mtime_ns] for path, state in states]
        return {"files": files, "column": self.data.column}

    def check(self) -> None:
        """Read the start of each file. Raises BadData."""
        for path in self.paths:
            for document in islice(reader_for(path)(path, self.data.column), 1):
                next(iter(document), None)

    def _globs(self) -> tuple[str, ...]:
        files = self.data.files or ()
        return (files,) if isinstance(files, str) else files


def _matches(pattern: str) -> list[Path]:
    expanded = str(Path(pattern).expanduser())
    if Path(expanded).is_dir():
        raise BadData(f"{pattern} is a folder; name the files in it, such as '{pattern}/**/*.txt'")
    found = sorted(Path(name) for name in glob.glob(expanded, recursive=True))
    files = [path for path in found if path.is_file()]
    if files:
        return files
    if any(char in pattern for char in GLOB_CHARS):
        raise BadData(
            f"no file matches {pattern!r} (looked from {Path.cwd()}); known endings: "
            f"{', '.join(READERS)}"
        )
    raise BadData(f"there is no file {pattern!r} (looked from {Path.cwd()})")
