"""What is known of a finished embedding, as tables (CSV) and pictures (PNG).

Pictures are drawn by matplotlib without its global state; colours are readable in grey and by the
colour-blind.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["new_figure", "save_figure", "write_csv", "write_report"]

Array = np.ndarray[Any, Any]

STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
}
MAX_NUMBERS = 26
"""Groups up to which a matrix's cells carry their number."""
MAX_NAMES = 70
"""Groups up to which each row of a matrix carries its name."""
NAME_CHARS = 22
BAR = "#0072B2"
CHANCE = "#9a9a9a"


def write_report(folder: Path, shares: Mapping[str, Any]) -> list[Path]:
    """Write tables and pictures of `evaluation.report`'s answer; the folder is made.

    Returns the files: confusion and distances between groups as CSV and PNG, accuracies with their
    intervals as CSV and PNG, and the confusion of parents where groups have any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups, parents = shares["groups"], shares["parents"]
    counts_GG = np.array(shares["confusion"], dtype=float)
    written = [
        _matrix_csv(folder / "confusion.csv", "group \\ taken for", groups, shares["confusion"]),
        _confusion_png(folder / "confusion.png", counts_GG, groups, "group"),
        *_separation(folder, shares),
        *_accuracy(folder, shares),
    ]
    if len(parents) < len(groups):
        by_parent = np.array(shares["confusion_by_parent"], dtype=float)
        corner = "parent \\ taken for"
        written += [
            _matrix_csv(
                folder / "confusion_by_parent.csv", corner, parents, shares["confusion_by_parent"]
            ),
            _confusion_png(folder / "confusion_by_parent.png", by_parent, parents, "parent"),
        ]
    return written


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """One table with a header, in UTF-8."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that belongs to nobody else."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Draw it into a PNG of 180 dots an inch."""
    figure.savefig(path, format="png", dpi=180)
    return path


def _matrix_csv(path: Path, corner: str, names: Sequence[str], cells: Any) -> Path:
    rows = [[name, *line] for name, line in zip(names, cells, strict=True)]
    return write_csv(path, [corner, *names], rows)


def _confusion_png(path: Path, counts_GG: Array, names: Sequence[str], what: str) -> Path:
    """Rows add up to one: a large group does not drown the small ones."""
    from matplotlib import rc_context

    sizes_G = counts_GG.sum(axis=1)
    shares_GG = counts_GG / np.maximum(sizes_G, 1)[:, None]
    labels = [f"{_short(n)} ({int(s)})" for n, s in zip(names, sizes_G, strict=True)]
    mean = shares_GG.diagonal()[sizes_G > 0].mean()
    with rc_context(dict(STYLE)):
        figure, axes = _matrix(shares_GG, labels, [_short(n) for n in names], "Blues", (0.0, 1.0))
        axes.set_xlabel(f"nearest {what}'s centroid")
        axes.set_ylabel(f"{what} (test rows)")
        axes.set_title(f"Confusion in percent of each row; mean of the diagonal {mean:.1%}")
        _write_numbers(axes, shares_GG, lambda v: f"{100 * v:.0f}" if v >= 0.005 else "", 0.55)
        return save_figure(figure, path)


def _separation(folder: Path, shares: Mapping[str, Any]) -> list[Path]:
    """Distances between groups off the diagonal, within a group on it."""
    from matplotlib import rc_context

    groups = shares["groups"]
    inter_GG, intra_G = np.array(shares["inter"]), np.array(shares["intra"])
    both_GG = inter_GG.copy()
    np.fill_diagonal(both_GG, intra_G)
    table = write_csv(
        folder / "separation.csv",
        ["group", "within", "nearest group", "distance to it", "mean distance to others"],
        _separation_rows(groups, inter_GG, intra_G),
    )
    matrix = _matrix_csv(folder / "distances.csv", "distance (diagonal: within)", groups, both_GG)
    names = [_short(name) for name in groups]
    between = inter_GG[~np.eye(len(groups), dtype=bool)]
    with rc_context(dict(STYLE)):
        figure, axes = _matrix(both_GG, names, names, "viridis", (0.0, float(both_GG.max()) or 1.0))
        axes.set_title(
            f"Distance between groups' means ({between.mean():.3g} on average), on the diagonal "
            f"within a group ({intra_G.mean():.3g})",
            loc="right",
        )
        _write_numbers(axes, both_GG, lambda v: f"{v:.2g}", 0.55, dark_is_low=True)
        _frame_diagonal(axes, len(groups))
        return [table, matrix, save_figure(figure, folder / "distances.png")]


def _separation_rows(
    groups: Sequence[str], inter_GG: Array, intra_G: Array
) -> Iterable[tuple[Any, ...]]:
    for number, group in enumerate(groups):
        others = np.delete(inter_GG[number], number)
        near = int(others.argmin())
        name = groups[near + (near >= number)]
        yield group, float(intra_G[number]), name, float(others.min()), float(others.mean())


def _accuracy(folder: Path, shares: Mapping[str, Any]) -> list[Path]:
    """Accuracy by group, corpus and parent, with intervals where there are any."""
    intervals = shares["intervals"]
    rows: list[tuple[Any, ...]] = []

    def add(kind: str, name: str, value: float, count: Any, key: str) -> None:
        low, high = intervals.get(key, ("", ""))
        rows.append((kind, name, value, low, high, count))

    total = sum(shares["rows_by_group"].values())
    add("all", "macro accuracy", shares["macro_accuracy"], total, "macro_accuracy")
    if len(shares["parents"]) < len(shares["groups"]):
        add("all", "parent accuracy", shares["parent_accuracy"], total, "parent_accuracy")
    for corpus, value in shares["accuracy_by_corpus"].items():
        add("corpus", corpus, value, "", f"corpus {corpus}")
    for group, value in shares["accuracy_by_group"].items():
        parent = shares["parent_of"][group]
        kind = "group" if parent == group else f"group of {parent}"
        add(kind, group, value, shares["rows_by_group"][group], group)
    header = ["what", "name", "accuracy", "low", "high", "rows"]
    table = write_csv(folder / "accuracy.csv", header, rows)
    return [table, _accuracy_png(folder / "accuracy.png", rows, 1 / len(shares["groups"]))]


def _accuracy_png(path: Path, rows: Sequence[tuple[Any, ...]], chance: float) -> Path:
    from matplotlib import rc_context

    named = [row for row in rows if not str(row[0]).startswith("group")]
    groups = sorted((row for row in rows if str(row[0]).startswith("group")), key=lambda r: -r[2])
    shown = [*named, *groups[:MAX_NAMES]]
    with rc_context(dict(STYLE)):
        figure = new_figure(6.0, 1.0 + 0.2 * len(shown))
        axes = figure.add_subplot()
        places = np.arange(len(shown))
        colours = [BAR if row in named else "#7fb4d6" for row in shown]
        axes.barh(places, [row[2] for row in shown], color=colours, height=0.72)
        for place, row in zip(places, shown, strict=True):
            if row[3] != "":
                axes.plot([row[3], row[4]], [place, place], color="#222222", linewidth=1.2)
        axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1.0)
        axes.text(chance, len(shown) - 0.4, " chance", color="#6a6a6a", fontsize=8, va="top")
        labels = [
            f"corpus {row[1]}" if row[0] == "corpus" else _short(str(row[1])) for row in shown
        ]
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of test rows nearest to their own group's centroid")
        return save_figure(figure, path)


def _matrix(
    cells_GG: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    colours: str,
    span: tuple[float, float],
) -> tuple[Figure, Axes]:
    side = min(14.0, max(4.0, 1.8 + 0.34 * len(rows)))
    figure = new_figure(side + 1.0, side)
    axes = figure.add_subplot()
    image = axes.imshow(cells_GG, cmap=colours, vmin=span[0], vmax=span[1])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    if len(rows) <= MAX_NAMES:
        size = 9 if len(rows) <= 14 else max(4.5, 9 * 24 / (len(rows) + 10))
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
        axes.set_yticks(range(len(rows)), rows, fontsize=size)
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
    return figure, axes


def _write_numbers(
    axes: Axes, cells_GG: Array, text: Any, turn: float, *, dark_is_low: bool = False
) -> None:
    if len(cells_GG) > MAX_NUMBERS:
        return
    top = float(cells_GG.max()) if dark_is_low else 1.0
    size = 8 if len(cells_GG) <= 14 else 6
    for (row, column), value in np.ndenumerate(cells_GG):
        is_dark = (value < turn * top) if dark_is_low else (value > turn * top)
        colour = "white" if is_dark else "#222222"
        axes.text(column, row, text(value), ha="center", va="center", fontsize=size, color=colour)


def _frame_diagonal(axes: Axes, count: int) -> None:
    from matplotlib.patches import Rectangle

    for place in range(count):
        axes.add_patch(
            Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1)
        )


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 3]}..."
