"""The frontier as a figure for a paper or a screen."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.results.frontier import Direction, Point, pareto, widths_of
from orchestrator.results.table import ResultRow, Results
from orchestrator.view import cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#9a9a9a"
LOG_FROM_SPAN = 10.0
"""Where L0 spans more than this factor its axis is logarithmic."""
METRIC_LABELS = {
    "fvu": "FVU (fraction of variance unexplained)",
    "explained_variance": "explained variance",
    "mse": "mean squared error",
}
"""Axis labels of metrics whose name does not say it."""


@dataclass(frozen=True)
class _Placed:
    row: ResultRow
    l0: float
    value: float


def frontier_png(results: Results) -> bytes:
    """Draw metric over L0: a line a width, finished trials labelled by k, the others grey."""
    from matplotlib import rc_context

    with rc_context(_style()):
        figure = _figure(results)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=200)
        return file.getvalue()


def _style() -> dict[str, Any]:
    return {
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.labelsize": 9.5,
        "axes.grid": True,
        "grid.color": "#e8e8e8",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.facecolor": "white",
    }


def _figure(results: Results) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    placed = _placed(results)
    finished = [p for p in placed if p.row.state == "finished"]
    others = [p for p in placed if p.row.state in ("stopped", "diverged")]
    _scale(axes, finished, others)
    _draw_others(axes, others)
    _draw_finished(axes, finished, results)
    _name(axes, results)
    _legend(axes, finished, others)
    figure.draw_without_rendering()  # places depend on the layout, which is settled by drawing
    on_lines = [p for _, points in _by_width(finished) for p in _line(points, results)]
    _label_points(axes, on_lines, results.facts.direction)
    if not placed:
        axes.text(0.5, 0.5, "no trial has reported yet", transform=axes.transAxes, ha="center")
    return figure


def _placed(results: Results) -> list[_Placed]:
    found = []
    for row in results.rows:
        l0, value = cells.known(row.metrics.get("l0")), results.value(row)
        if l0 is not None and value is not None:
            found.append(_Placed(row, l0, value))
    return found


def _scale(axes: Axes, finished: Sequence[_Placed], others: Sequence[_Placed]) -> None:
    """Axes around the frontier: a bad trial far outside must not squeeze it."""
    shown = [*finished, *others]
    if not shown:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    l0s = [p.l0 for p in shown]
    if min(l0s) > 0 and max(l0s) > LOG_FROM_SPAN * min(l0s):
        axes.set_xscale("log")
        axes.set_xlim(min(l0s) / 1.3, max(l0s) * 1.3)
    else:
        margin = 0.1 * (max(l0s) - min(l0s)) or max(0.1 * abs(l0s[0]), 1.0)
        axes.set_xlim(min(l0s) - margin, max(l0s) + margin)
    best = [p for p in finished if p.row.on_frontier] or finished or others
    low, high = min(p.value for p in best), max(p.value for p in best)
    reach = max(high - low, 0.25 * abs(high), 1e-6)
    near = [p.value for p in shown if low - 2 * reach <= p.value <= high + 2 * reach]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * max(high - low, reach)
    axes.set_ylim(low - margin, high + margin)


def _draw_others(axes: Axes, others: Sequence[_Placed]) -> None:
    for p in others:
        if _is_inside(axes, p):
            axes.plot(
                p.l0, p.value, marker="x", markersize=3.5, markeredgewidth=0.9, color=GREY, zorder=2
            )
        else:
            _draw_at_edge(axes, p, GREY)


def _is_inside(axes: Axes, p: _Placed) -> bool:
    low, high = axes.get_ylim()
    return bool(low <= p.value <= high)


def _draw_at_edge(axes: Axes, p: _Placed, colour: str) -> None:
    low, high = axes.get_ylim()
    is_above = p.value > high
    axes.plot(
        p.l0,
        high if is_above else low,
        marker="^" if is_above else "v",
        markersize=3.5,
        color=colour,
        clip_on=False,
        zorder=2,
    )


def _draw_finished(axes: Axes, finished: Sequence[_Placed], results: Results) -> None:
    architectures = _architectures(finished)
    for colour, points in _by_width(finished):
        line = _line(points, results)
        axes.plot([p.l0 for p in line], [p.value for p in line], color=colour, linewidth=1.5)
        for p in points:
            if not _is_inside(axes, p):
                _draw_at_edge(axes, p, colour)
                continue
            axes.plot(
                p.l0,
                p.value,
                marker=MARKERS[architectures.index(_architecture(p)) % len(MARKERS)],
                markersize=5.5,
                color=colour,
                markerfacecolor=colour if p.row.on_frontier else "white",
                markeredgewidth=1.2,
                zorder=4,
            )


def _line(points: Sequence[_Placed], results: Results) -> list[_Placed]:
    """The frontier of one width, by rising L0."""
    by_trial = {p.row.trial: p for p in points}
    places = {trial: Point(p.l0, p.value) for trial, p in by_trial.items()}
    return [by_trial[trial] for trial in pareto(places, results.facts.direction)]


def _by_width(finished: Sequence[_Placed]) -> list[tuple[str, list[_Placed]]]:
    """A colour and the points of each width."""
    return [
        (COLOURS[i % len(COLOURS)], [p for p in finished if p.row.config.get("d_sae") == width])
        for i, width in enumerate(widths_of([p.row.config for p in finished]))
    ]


def _architecture(point: _Placed) -> str:
    return str(point.row.config.get("architecture", ""))


def _architectures(finished: Sequence[_Placed]) -> list[str]:
    return sorted({_architecture(p) for p in finished})


def _name(axes: Axes, results: Results) -> None:
    metric = results.facts.metric
    axes.set_ylabel(METRIC_LABELS.get(metric, metric))
    axes.set_xlabel("L0 (latents that fire for a token)")
    where = subtitle(results.facts.setup)
    axes.set_title(results.facts.id, loc="left", fontweight="bold", pad=18 if where else 8)
    if where:
        axes.text(0.0, 1.025, where, transform=axes.transAxes, color="#555555", fontsize=8)
    if axes.get_xscale() == "log":
        _plain_ticks(axes)


def _plain_ticks(axes: Axes) -> None:
    """16, 32, 64 instead of 10^1.2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda l0, _: f"{l0:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def subtitle(setup: Mapping[str, Any]) -> str:
    """Model, hook and tokens of a sweep, as far as its setup has them."""
    model = setup.get("model")
    name = (model.get("name") or model.get("builtin")) if isinstance(model, Mapping) else model
    hooks = setup.get("hooks")
    hook = ", ".join(hooks) if isinstance(hooks, list | tuple) else hooks
    tokens = setup.get("tokens")
    parts = [str(part) for part in (name, hook) if part]
    if isinstance(tokens, int):
        parts.append(f"{cells.tokens(tokens)} tokens")
    return cells.one_line(", ".join(parts), 90)


def _legend(axes: Axes, finished: Sequence[_Placed], others: Sequence[_Placed]) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, marker: str, **style: Any) -> Line2D:
        drawn = {"color": "#444444", "markersize": 5, **style}
        return Line2D([], [], marker=marker, linestyle="none", label=label, **drawn)

    handles = [
        Line2D(
            [], [], color=colour, linewidth=1.8, label=f"{points[0].row.config['d_sae']} latents"
        )
        for colour, points in _by_width(finished)
        if points and "d_sae" in points[0].row.config
    ]
    architectures = _architectures(finished)
    if len(architectures) > 1:
        handles += [mark(name, MARKERS[i % len(MARKERS)]) for i, name in enumerate(architectures)]
    if any(not p.row.on_frontier for p in finished):
        handles.append(mark("beaten by another", "o", markerfacecolor="white"))
    if others:
        handles.append(mark("stopped early", "x", color=GREY, markersize=4))
    if not all(_is_inside(axes, p) for p in (*finished, *others)):
        handles.append(mark("off the axis", "^", color=GREY, markersize=4))
    if handles:
        axes.legend(handles=handles, loc="best")


def _label_points(axes: Axes, finished: Sequence[_Placed], direction: Direction) -> None:
    """`k=32` beside a point, where it does not run into another label or point."""
    sign = 1 if direction == "min" else -1  # of near equals the best is labelled
    labelled = [p for p in finished if "k" in p.row.config and _is_inside(axes, p)]
    taken = [_pixels(axes, p) for p in labelled]
    labels: list[tuple[str, tuple[float, float]]] = []
    for p in sorted(labelled, key=lambda p: (not p.row.on_frontier, sign * p.value)):
        text = f"k={cells.parameter(p.row.config['k'])}"
        x, y = _pixels(axes, p)
        if any(text == other and not _apart((x, y), at, 60, 40) for other, at in labels):
            continue  # its neighbour says the same
        for dx, dy, across in LABEL_OFFSETS:
            at = (x + dx * 1.39 + 16 * across, y + dy * 1.39)
            if all(_apart(at, other) for _, other in labels) and all(
                _apart(at, place, 24, 10) for place in taken if place != (x, y)
            ):
                labels.append((text, at))
                _write_label(axes, p, text, (dx, dy), across)
                break


def _pixels(axes: Axes, p: _Placed) -> tuple[float, float]:
    x, y = axes.transData.transform((p.l0, p.value))
    return float(x), float(y)


def _write_label(
    axes: Axes, p: _Placed, text: str, offset: tuple[float, float], across: int
) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        (p.l0, p.value),
        xytext=offset,
        textcoords="offset points",
        ha="left" if across > 0 else "right",
        va="center",
        fontsize=7.5,
        color="#333333",
        zorder=5,
        path_effects=[withStroke(linewidth=2.0, foreground="white")],
    )


LABEL_OFFSETS = ((-5, -9, -1), (5, -9, 1), (5, 8, 1), (-5, 8, -1), (8, 0, 1), (-8, 0, -1))
"""Where a label may stand: points to the right, points up, and the side it grows to."""


def _apart(
    one: tuple[float, float], other: tuple[float, float], wide: float = 36, high: float = 13
) -> bool:
    """Whether two places are far enough from each other for a label, in pixels at 100 dpi."""
    return abs(one[0] - other[0]) > wide or abs(one[1] - other[1]) > high
