"""Whether files that a sweep names are there: asked of the disk before anything runs."""

from __future__ import annotations

import glob
from collections.abc import Sequence


def missing_files(
    files: str | Sequence[str] | None, at: tuple[str | int, ...] = ("data", "files")
) -> list[tuple[tuple[str | int, ...], str]]:
    """A fault for each name or glob that nothing matches, in the form of `JobKind.check_here`."""
    names = [files] if isinstance(files, str) else list(files or ())
    return [
        (at, f"no file matches {name!r}; name one that is there")
        for name in names
        if not glob.glob(name, recursive=True)
    ]
