"""Figures of probes, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
GREY = "#9a9a9a"
MAX_CURVES = 6

Row = Mapping[str, Any]


def curves_png(lines: Sequence[tuple[str, Mapping[str, Any]]]) -> bytes:
    """ROC and precision-recall curves side by side, a colour a line.

    Args:
        lines: (name, a label of an evaluation as JSON).
    """

    def draw(roc: Axes, recall: Axes) -> None:
        roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        for (name, label), colour in zip(lines[:MAX_CURVES], COLOURS, strict=False):
            points = label["roc"]
            x, y = points["false_positive_rate"], points["true_positive_rate"]
            roc.plot(x, y, color=colour, linewidth=1.4, label=name)
            points = label["precision_recall"]
            recall.plot(points["recall"], points["precision"], color=colour, linewidth=1.4)
            share = label["positives"] / max(1, label["rows"])
            recall.axhline(share, color=colour, linewidth=0.7, linestyle=":")
        roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
        recall.set(xlabel="recall", ylabel="precision", title="precision and recall")
        for axes in (roc, recall):
            axes.set_xlim(-0.01, 1.01)
            axes.set_ylim(-0.01, 1.03)
        roc.legend(loc="lower right", frameon=False, fontsize=7)

    return _drawn(draw, 2)


def layers_png(points_by_line: Mapping[str, Sequence[tuple[int, float, float, float]]]) -> bytes:
    """AUROC over the layer that is read; (layer, value, low, high) of each line."""

    def draw(axes: Axes) -> None:
        lines = points_by_line.items()
        for (name, points), colour in zip(lines, COLOURS, strict=False):
            layers, values, lows, highs = zip(*sorted(points), strict=True)
            axes.fill_between(layers, lows, highs, color=colour, alpha=0.15, linewidth=0)
            axes.plot(layers, values, color=colour, marker="o", markersize=4, label=name)
            axes.set_xticks(sorted({*axes.get_xticks(), *layers} & set(layers)))
        axes.set(xlabel="layer", ylabel="test AUROC")
        axes.legend(frameon=False, fontsize=7)

    return _drawn(draw, 1)


def quality_png(rows: Sequence[Row], over: str, raw: float | None) -> bytes:
    """Probe AUROC of each SAE over its L0 or FVU; the dotted line is the raw activations."""

    def draw(axes: Axes) -> None:
        widths = sorted({row.get("d_sae") or 0 for row in rows})
        for width, colour in zip(widths, COLOURS, strict=False):
            own = sorted((r for r in rows if (r.get("d_sae") or 0) == width), key=lambda r: r[over])
            x, y = [r[over] for r in own], [r["auroc"] for r in own]
            low, high = (
                [abs(r["auroc"] - _known(r.get(f"{end}_over_splits"), r["auroc"])) for r in own]
                for end in ("low", "high")
            )
            axes.errorbar(
                x, y, yerr=[low, high], color=colour, marker="o", markersize=4, linewidth=0,
                elinewidth=1, capsize=2, label=f"{width} latents",
            )  # fmt: skip
        if raw is not None:
            axes.axhline(raw, color=GREY, linestyle=":", linewidth=1, label="raw activations")
        if over == "l0":
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.01))
        names = {"l0": "L0", "fvu": "FVU"}
        axes.set(xlabel=names.get(over, over), ylabel="test AUROC of the probe")
        axes.legend(frameon=False, fontsize=7)

    return _drawn(draw, 1)


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def noise_png(lines_by_panel: Mapping[str, Mapping[str, Sequence[Row]]]) -> bytes:
    """AUROC over the share of wrong labels, a panel a kind of wrong, a colour a probe.

    Args:
        lines_by_panel: panel -> probe -> points with `rate`, `auroc`, `low` and `high`.
    """

    def draw(*panels: Axes) -> None:
        for axes, (title, lines) in zip(panels, lines_by_panel.items(), strict=True):
            for (name, points), colour in zip(lines.items(), COLOURS[:MAX_CURVES], strict=False):
                known = [point for point in points if point["auroc"] is not None]
                x, y = [p["rate"] for p in known], [p["auroc"] for p in known]
                axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.3, label=name)
                sure = [point for point in known if point["low"] is not None]
                axes.fill_between(
                    [p["rate"] for p in sure], [p["low"] for p in sure], [p["high"] for p in sure],
                    color=colour, alpha=0.13, linewidth=0,
                )  # fmt: skip
            axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
            axes.set(title=title, xlabel="share of labels flipped")
        panels[0].set_ylim(top=min(panels[0].get_ylim()[1], 1.01))
        panels[0].set_ylabel("test AUROC, clean labels")
        panels[0].legend(frameon=False, fontsize=6)

    return _drawn(draw, len(lines_by_panel), sharey=True)


def _drawn(draw: Callable[..., None], columns: int, *, sharey: bool = False) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style):
        figure = Figure(figsize=(4.2 * columns, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        draw(*figure.subplots(1, columns, squeeze=False, sharey=sharey)[0])
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=160)
    return file.getvalue()
