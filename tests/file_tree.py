"""The file trees of the documents, from what each file says first; `python -m tests.file_tree`."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "jobs", "sae", "steering")
OTHERS = ("examples", "benchmarks", "docs")
REMARK_COLUMN = 31
TEXT_SUFFIXES = {".py", ".yaml", ".md", ".cpp", ".j2", ".sh", ".service"}
OPENING = "```text\n"
CLOSING = "```\n"


def first_line(path: Path) -> str:
    """What a file says of itself first: its docstring's line, heading, or first comment."""
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].rstrip(".")
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#!")]
    said = itertools.takewhile(lambda line: line.startswith(("#", "//", "<!--", "{#")), lines)
    text = " ".join(line.strip(" #/<!-{") for line in said)
    return re.split(r"(?<=\?)\s|\. |[:;(]", text)[0].strip(" .")


def text_files() -> list[Path]:
    """Files of code and prose below the folders that a tree shows, relative to the root."""
    found = (path for top in (*PACKAGES, *OTHERS) for path in (ROOT / top).rglob("*"))
    return sorted(path.relative_to(ROOT) for path in found if path.suffix in TEXT_SUFFIXES)


def readme_tree() -> str:
    """The rooms: every folder of the packages; files only where a reader begins."""
    return _tree((*PACKAGES, *OTHERS), _shown_in_readme)


def files_tree() -> str:
    """Every file of the packages."""
    return _tree(PACKAGES, lambda path: path.name != "__init__.py")


def with_tree(page: str, tree: str) -> str:
    """The page's text with its one tree block replaced."""
    start = page.index(OPENING) + len(OPENING)
    return page[:start] + tree + page[page.index(CLOSING, start) :]


def _shown_in_readme(path: Path) -> bool:
    return path.parent.as_posix() in {"jobs", "examples", "benchmarks", "docs"} and (
        path.name not in ("__init__.py", "README.md")
    )


def _tree(tops: tuple[str, ...], shown: Callable[[Path], bool]) -> str:
    files = text_files()
    return "".join(line + "\n" for top in tops for line in _lines(Path(top), files, shown))


def _lines(folder: Path, files: list[Path], shown: Callable[[Path], bool]) -> Iterator[str]:
    indent = 2 * (len(folder.parts) - 1)
    about = ROOT / folder / "__init__.py"
    yield _line(indent, f"{folder.name}/", first_line(about) if about.is_file() else "")
    for path in files:
        if path.parent == folder and shown(path):
            yield _line(indent + 2, path.name, first_line(ROOT / path))
    below = [path for path in files if path.is_relative_to(folder) and path.parent != folder]
    for child in sorted({Path(*path.parts[: len(folder.parts) + 1]) for path in below}):
        yield from _lines(child, files, shown)


def _line(indent: int, name: str, remark: str) -> str:
    named = " " * indent + name
    return f"{named:<{REMARK_COLUMN - 2}}  {remark}" if remark else named


def write() -> None:
    for page, tree in (("README.md", readme_tree()), ("docs/files.md", files_tree())):
        path = ROOT / page
        path.write_text(with_tree(path.read_text(), tree))


if __name__ == "__main__":
    write()
