"""Whether what a sweep takes in is there: files on the disk, entries of its `needs`."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence


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


def missing_needs(
    wanted: Mapping[tuple[str | int, ...], str], kinds: Sequence[str]
) -> list[tuple[tuple[str | int, ...], str]]:
    """A fault for each `needs` in a setup that no needed sweep answers.

    Args:
        wanted: path of the key that says `needs` -> artefact kind that it takes.
        kinds: what the sweep needs, see `JobKind.check_needs`.
    """
    return [
        (
            at,
            f"takes what other sweeps made, and this one needs nothing of kind {kind}; add needs: "
            f"[{{sweep: NAME, select: {{kind: {kind}, ...}}}}], or name what is here",
        )
        for at, kind in wanted.items()
        if kind not in kinds
    ]
