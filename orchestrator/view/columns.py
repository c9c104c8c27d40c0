"""Tables that fit: columns give way by rank until the lines are no wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from orchestrator.view.cells import UNKNOWN

GAP = 2
ELLIPSIS = "\u2026"


@dataclass(frozen=True)
class Column:
    """One column and when it gives way."""

    title: str
    cells: Sequence[str | Text]
    rank: int = 0
    """The highest is dropped first; 0 is never dropped, and others only shown if they say
    something."""
    right: bool = False
    shrinks_to: int | None = None
    """Cells to which its text may be cut before any column is dropped."""

    @property
    def natural_width(self) -> int:
        """Width of its longest cell or title, in terminal cells."""
        return max([Text(self.title).cell_len, *(_text(cell).cell_len for cell in self.cells)])

    @property
    def says_something(self) -> bool:
        """Whether any cell holds more than a dash."""
        return any(_text(cell).plain not in ("", UNKNOWN) for cell in self.cells)


def table_lines(
    columns: Sequence[Column],
    width: int | None,
    *,
    ascii_only: bool = False,
    titled: bool = True,
) -> list[Text]:
    """Draw a table as lines of text, the titles first.

    Args:
        columns: as many cells in each.
        width: terminal cells to fit into; None for as wide as it gets (a pipe, a file).
        titled: whether the first line holds the titles.
    """
    shown = [c for c in columns if c.rank == 0 or c.says_something]
    widths = [c.natural_width for c in shown]
    if width is not None:
        shown, widths = _fit(shown, width)
    rows: list[Sequence[str | Text]] = list(zip(*(c.cells for c in shown), strict=True))
    if titled:
        rows.insert(0, [Text(c.title, style="dim") for c in shown])
    ellipsis = "..." if ascii_only else ELLIPSIS
    lines = [_line(row, shown, widths, ellipsis) for row in rows]
    for line in lines:
        if width is not None:
            cut(line, width, ellipsis)
    return lines


def _fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[int]]:
    shown = list(columns)
    while True:
        widths = _shrunk(shown, width)
        if sum(widths) + GAP * (len(shown) - 1) <= width:
            return shown, widths
        worst = max(shown, key=lambda c: c.rank, default=None)
        if worst is None or worst.rank == 0:
            return shown, widths
        shown.remove(worst)


def _shrunk(columns: Sequence[Column], width: int) -> list[int]:
    widths = [c.natural_width for c in columns]
    over = sum(widths) + GAP * (len(columns) - 1) - width
    for i, column in enumerate(columns):
        if over > 0 and column.shrinks_to is not None:
            give = min(over, max(widths[i] - column.shrinks_to, 0))
            widths[i] -= give
            over -= give
    return widths


def _line(
    row: Sequence[str | Text],
    columns: Sequence[Column],
    widths: Sequence[int],
    ellipsis: str,
) -> Text:
    line = Text(no_wrap=True)
    for i, (cell, column, width) in enumerate(zip(row, columns, widths, strict=True)):
        if i:
            line.append(" " * GAP)
        text = cut(_text(cell), width, ellipsis)
        padding = " " * (width - text.cell_len)
        if column.right:
            line.append(padding)
        line.append_text(text)
        if not column.right and i < len(columns) - 1:
            line.append(padding)
    return line


def _text(cell: str | Text) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def cut(text: Text, width: int, ellipsis: str = ELLIPSIS) -> Text:
    """Cut in place to a width, with an ellipsis where something was lost."""
    if text.cell_len > width:
        if width <= len(ellipsis):
            text.truncate(max(width, 0))
        else:
            text.truncate(width - len(ellipsis))
            text.append(ellipsis)
    return text


def flowed(pieces: Sequence[Text], width: int) -> list[Text]:
    """Put pieces on as few lines as fit; none is broken, one that is too wide is cut."""
    roomy, tight = _flowed(pieces, width, "   "), _flowed(pieces, width, "  ")
    return tight if len(tight) < len(roomy) else roomy


def _flowed(pieces: Sequence[Text], width: int, gap: str) -> list[Text]:
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + len(gap) + piece.cell_len <= width:
            lines[-1].append(gap)
            lines[-1].append_text(piece)
        else:
            lines.append(cut(piece.copy(), width))
    return lines
