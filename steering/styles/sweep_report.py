"""What a sweep of embeddings found: trials by their objective, margins against separation."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.styles.pictures import STYLE, new_figure, save_figure, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TrialLine", "write_sweep_report"]

SHOWN_METRICS = (
    "macro_accuracy",
    "test_macro_accuracy",
    "triplet_accuracy",
    "silhouette",
    "separation",
    "test_parent_accuracy",
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PAGE_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #e5e5e5; text-align: right;
  white-space: nowrap }
th { text-align: right; font-weight: 600 } td:first-child, th:first-child { text-align: left }
tr.best td { background: #eaf3fa } img { max-width: 100%; margin-top: 1.2rem }
"""


@dataclass(frozen=True)
class TrialLine:
    """A finished trial."""

    trial: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float]


def write_sweep_report(
    trials: Sequence[TrialLine], objective: str, folder: Path
) -> tuple[Path, ...]:
    """Write a page, its table and, where several margins were tried, a picture.

    Args:
        objective: the metric that trials are sorted by, best (largest) first.
        folder: is there.

    Returns the files, the page first; nothing for no trials.
    """
    if not trials:
        return ()
    ranked = sorted(trials, key=lambda one: -_number(one.metrics.get(objective), -math.inf))
    names = _varied(ranked)
    metrics = [name for name in SHOWN_METRICS if any(name in one.metrics for one in ranked)]
    header = ["trial", *metrics, *names]
    rows = [
        [
            one.trial,
            *(one.metrics.get(name, "") for name in metrics),
            *(_plain(one.config.get(name, "")) for name in names),
        ]
        for one in ranked
    ]
    table = write_csv(folder / "embeddings.csv", header, rows)
    pictures = _margin_picture(ranked, folder / "margins.png")
    page = folder / "embeddings.html"
    page.write_text(_page(header, rows, pictures, objective), encoding="utf-8")
    return (page, table, *pictures)


def _varied(trials: Sequence[TrialLine]) -> list[str]:
    """Parameters in which trials differ, in the order in which they come."""
    names = dict.fromkeys(name for one in trials for name in one.config)
    return [n for n in names if len({_plain(one.config.get(n, "")) for one in trials}) > 1]


def _margin_picture(trials: Sequence[TrialLine], path: Path) -> list[Path]:
    """Margin against separation and against the objective's accuracy, a colour a distance."""
    placed = [one for one in trials if _number(one.config.get("margin"), 0.0) > 0]
    if len({one.config["margin"] for one in placed}) < 2:
        return []
    from matplotlib import rc_context

    kinds = list(dict.fromkeys(_kind(one) for one in placed))
    with rc_context({**STYLE, "axes.grid": True, "grid.color": "#e8e8e8"}):
        figure = new_figure(8.4, 3.6)
        left, right = figure.subplots(1, 2)
        _scatter(left, placed, kinds, "separation", "distance between groups / within")
        _scatter(right, placed, kinds, "macro_accuracy", "macro accuracy (validation)")
        right.legend(loc="best", handletextpad=0.3)
        return [save_figure(figure, path)]


def _scatter(
    axes: Axes, trials: Sequence[TrialLine], kinds: Sequence[str], metric: str, label: str
) -> None:
    for number, kind in enumerate(kinds):
        own = [one for one in trials if _kind(one) == kind and metric in one.metrics]
        axes.scatter(
            [one.config["margin"] for one in own],
            [one.metrics[metric] for one in own],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            s=26,
            alpha=0.85,
            linewidths=0,
            label=kind,
        )
    margins = [float(one.config["margin"]) for one in trials]
    if max(margins) > 5 * min(margins):
        _log_axis(axes, min(margins), max(margins))
    axes.set_xlabel("margin")
    axes.set_ylabel(label)


def _log_axis(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    axes.set_xscale("log")
    steps = [m * 10.0**e for e in range(-4, 3) for m in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([s for s in steps if low / 1.3 <= s <= high * 1.3]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _kind(one: TrialLine) -> str:
    loss, distance = one.config.get("loss", "triplet"), one.config.get("distance", "euclidean")
    return f"{loss}, {distance}"


def _page(
    header: Sequence[str], rows: Sequence[Sequence[Any]], pictures: Sequence[Path], objective: str
) -> str:
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in header)
    body = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{html.escape(_said(value))}</td>" for value in row)
        body.append(f"<tr{' class=best' if number == 0 else ''}>{cells}</tr>")
    images = "".join(f'<img src="{p.name}" alt="margins against separation">' for p in pictures)
    note = (
        f"<p>Finished trials, best {html.escape(objective.replace('_', ' '))} first. Test accuracy "
        "is of rows that nothing was chosen on. Confusion, distances and accuracies of each trial "
        "are in the folder of its name.</p>"
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>Embeddings</title><style>{PAGE_STYLE}</style>\n<h1>Embeddings</h1>{note}\n"
        f"<table><tr>{head}</tr>\n{chr(10).join(body)}\n</table>\n{images}</html>\n"
    )


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _number(value: Any, otherwise: float) -> float:
    is_number = isinstance(value, (int, float)) and not math.isnan(value)
    return float(value) if is_number else otherwise
