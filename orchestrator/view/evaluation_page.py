"""`saeq evaluate`: a table a test, and what a reader has to know of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.cost_page import wrapped
from steering.styles.evaluations.outcome import SKIPPED, Figure, Outcome


def evaluation_page(
    name: str, outcomes: Sequence[Outcome], width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """All outcomes, one below the other."""
    lines = [Text(cells.one_line(name), style="bold")]
    for outcome in outcomes:
        lines += [Text(""), Text(outcome.name.replace("_", " "), style="bold")]
        if outcome.figures:
            lines += _table(outcome.figures, width, ascii_only)
        for what, why in outcome.skipped.items():
            subject = "" if what == outcome.name else f"{what}: "
            lines += wrapped(f"{subject}{SKIPPED}{why}", width)
        for note in outcome.notes:
            lines += wrapped(note, width)
    return lines


def _table(figures: Sequence[Figure], width: int | None, ascii_only: bool) -> list[Text]:
    columns = [
        Column("", [figure.name for figure in figures], shrinks_to=16),
        Column("estimate", [_number(f, f.interval.estimate) for f in figures], right=True),
        Column("95% interval", [_interval(figure) for figure in figures]),
        Column(
            "chance",
            ["" if f.chance is None else f"{f.chance:.3f}" for f in figures],
            1,
            right=True,
        ),
        Column("n", [str(figure.num) for figure in figures], 2, right=True),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)


def _interval(figure: Figure) -> str:
    low, high = figure.interval.low, figure.interval.high
    if low != low:
        return cells.UNKNOWN
    return f"[{_number(figure, low)}, {_number(figure, high)}]"


def _number(figure: Figure, value: float) -> str:
    """Differences with their sign."""
    return f"{value:+.3f}" if figure.chance is None else f"{value:.3f}"
