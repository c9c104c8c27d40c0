"""How R2 grows with the rows that a regressor is trained on: a table and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COLOURS = ("#0072B2", "#D55E00", "#009E73")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


@dataclass(frozen=True)
class CurvePoint:
    """One finished regressor."""

    rows: int
    loss: str
    r2: float
    """Of test rows, mean over attributes."""


def write_learning_curve(points: Sequence[CurvePoint], folder: Path) -> list[Path]:
    """Write learning_curve.png and .csv; nothing where all had as many rows."""
    if len({point.rows for point in points}) < 2:
        return []
    table = folder / "learning_curve.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["loss", "rows", "trials", "mean_r2", "best_r2"])
        for loss, rows, some in _cells(points):
            mean = sum(some) / len(some)
            writer.writerow([loss, rows, len(some), f"{mean:.6g}", f"{max(some):.6g}"])
    return [_drawn(points, folder / "learning_curve.png"), table]


def _cells(points: Sequence[CurvePoint]) -> list[tuple[str, int, list[float]]]:
    keys = sorted({(point.loss, point.rows) for point in points})
    return [
        (loss, rows, [p.r2 for p in points if (p.loss, p.rows) == (loss, rows)])
        for loss, rows in keys
    ]


def _drawn(points: Sequence[CurvePoint], path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    cells = _cells(points)
    for colour, loss in zip(COLOURS, sorted({point.loss for point in points}), strict=False):
        own = [(rows, some) for name, rows, some in cells if name == loss]
        for rows, some in own:
            axes.plot([rows] * len(some), some, ".", color=colour, alpha=0.35, markersize=5)
        means = [sum(some) / len(some) for _, some in own]
        axes.plot([rows for rows, _ in own], means, "o-", color=colour, label=loss)
    axes.set_xscale("log")
    ticks = sorted({point.rows for point in points})
    axes.set_xticks(ticks, [str(rows) for rows in ticks])
    axes.minorticks_off()
    axes.axhline(0.0, color="#9a9a9a", linewidth=0.8)
    axes.set_xlabel("rows trained on")
    axes.set_ylabel("R2 of test rows, mean over attributes")
    axes.set_title("Learning curve: each trial, and their mean")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    return path
