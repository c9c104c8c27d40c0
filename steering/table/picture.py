"""The table as a picture: a point and an interval for each condition and metric. matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steering.intervals import Interval
from steering.table.measuring import ConditionRow, Table

__all__ = ["draw_strengths", "draw_tables"]

PLAIN, STEERED = "#5a6b7b", "#c8502d"
"""Without and with steering."""
ROW_INCHES = 0.34


def draw_tables(tables: Sequence[Table], path: Path) -> None:
    """Write a PNG: a line of panels for each bank, a row of points for each condition."""
    from matplotlib.figure import Figure

    height = len(tables) * (8 * ROW_INCHES + 1.6)
    figure = Figure(figsize=(16, height), layout="constrained")
    parts = figure.subfigures(len(tables), 1, squeeze=False)[:, 0]
    for table, part in zip(tables, parts, strict=True):
        part.suptitle(
            f"{table.bank}: {table.num_prompts} prompts, {table.num_seeds} seeds, "
            f"{len(table.groups)} groups, strength {table.strength:g}; dashed: asking again (C1)",
            fontsize=11,
            weight="bold",
        )
        line = part.subplots(1, 5, sharey=True)
        _points(line[0], table, "M1: group changed", lambda row: row.shift.changed)
        _points(line[1], table, "M2 net: to the right group", lambda row: row.shift.net)
        _points(line[2], table, "M3 towards: 1 - cos", _distance)
        _points(line[3], table, "shift nearest to the target's way", _hit)
        _perplexity(line[4], table)
        names = [f"{row.name}  {row.label}" for row in table.rows]
        line[0].set_yticks(range(len(names)), names, fontsize=9)
        line[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def draw_strengths(points: Sequence[dict[str, float]], chosen: float, path: Path) -> None:
    """Write a PNG: net M2 and perplexity over the strength, where it was chosen.

    Args:
        points: with strength, m2_net, m1_rate and perplexity_ratio.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = [point["strength"] for point in points]
    left.plot(at, [point["m2_net"] for point in points], "o-", color=STEERED, label="M2 net")
    left.plot(at, [point["m1_rate"] for point in points], "s--", color=PLAIN, label="M1 changed")
    left.axhline(0.0, color="#999999", linewidth=0.8)
    left.legend(fontsize=8)
    right.plot(at, [point["perplexity_ratio"] for point in points], "o-", color=PLAIN)
    right.set_yscale("log")
    right.set_title("perplexity over that of unsteered answers", fontsize=10)
    left.set_title("steering alone (C5), prompts to choose on", fontsize=10)
    for axis in (left, right):
        axis.axvline(chosen, color="#999999", linestyle=":", linewidth=1)
        axis.set_xlabel("strength (of the residual norm)")
    figure.savefig(path, dpi=120)


def _points(axis: Any, table: Table, title: str, of: Callable[[ConditionRow], Interval]) -> None:
    """The dashed line is C1: what one gets by asking again."""
    floor = of(table.row("C1")).estimate
    if not math.isnan(floor):
        axis.axvline(floor, color="#999999", linestyle="--", linewidth=1)
    for place, row in enumerate(table.rows):
        found = of(row)
        if math.isnan(found.estimate):
            continue
        color = _color(row)
        axis.plot([found.low, found.high], [place, place], color=color, linewidth=2)
        axis.plot([found.estimate], [place], "o", color=color, markersize=6)
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)


def _perplexity(axis: Any, table: Table) -> None:
    for place, row in enumerate(table.rows):
        value = row.fluency["perplexity"]
        if not math.isnan(value):
            axis.plot([value], [place], "D", color=_color(row), markersize=5)
            axis.annotate(
                f"{value:.1f}", (value, place), (6, -3), textcoords="offset points", fontsize=8
            )
    axis.set_title("perplexity, unsteered model", fontsize=10)
    axis.margins(x=0.25)
    axis.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)


def _distance(row: ConditionRow) -> Interval:
    return row.shift.direction["towards"].distance


def _hit(row: ConditionRow) -> Interval:
    return row.shift.direction["towards"].hit


def _color(row: ConditionRow) -> str:
    return STEERED if "steering" in row.label else PLAIN
