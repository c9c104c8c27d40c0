"""The picture of curves over strength: effect, relevance, fluency and overall, a line a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.measures.curves import CurvePoint

__all__ = ["Line", "draw_curves"]

PANELS = (
    ("effect", "effect"),
    ("relevance", "relevance (unsteered = 1)"),
    ("fluency", "fluency (unsteered = 1)"),
    ("overall", "overall (harmonic mean)"),
)
MAX_LEGEND_LINES = 14


@dataclass(frozen=True)
class Line:
    """A curve and what it is called."""

    name: str
    points: tuple[CurvePoint, ...]
    chosen: float | None = None
    """Strength to be marked."""


def draw_curves(path: Path, lines: Sequence[Line]) -> None:
    """Four panels over strength, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, len(PANELS), sharey=True)
    for axis, (field, title) in zip(axes, PANELS, strict=True):
        for number, line in enumerate(lines):
            _draw(axis, line, field, f"C{number % 10}", "-" if number < 10 else "--")
        axis.set_title(title, fontsize=10)
        axis.set_ylim(-0.03, 1.05)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("strength (fraction of the residual norm)", fontsize=9)
    if len(lines) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles[:MAX_LEGEND_LINES],
            labels[:MAX_LEGEND_LINES],
            loc="outside right upper",
            fontsize=8,
            frameon=False,
        )
    figure.savefig(path, dpi=130)


def _draw(axis: Any, line: Line, field: str, colour: str, style: str) -> None:
    x = [point.strength for point in line.points]
    y = [getattr(point, field) for point in line.points]
    axis.plot(x, y, style, marker="o", markersize=3, color=colour, label=line.name)
    marked = [point for point in line.points if point.strength == line.chosen]
    if marked:
        at = getattr(marked[0], field)
        axis.plot([line.chosen], [at], "o", markersize=9, markerfacecolor="none", color=colour)
