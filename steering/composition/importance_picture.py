"""Draws who wins how many attributes, by source, and whether sources agree. matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from steering.composition.importance import Importance

__all__ = ["draw_importance"]

BAR_INCHES = 0.28


def draw_importance(importance: Importance, path: Path) -> None:
    """Write a PNG: shares won, margins, and rank agreement where there are several sources."""
    from matplotlib.figure import Figure

    bars = len(importance.groups) * len(importance.sources)
    height = max(3.2, 1.2 + BAR_INCHES * bars)
    several = len(importance.sources) > 1
    figure = Figure(figsize=(14 if several else 10, height), layout="constrained")
    axes = figure.subplots(1, 3 if several else 2)
    _draw_shares(axes[0], importance)
    _draw_margins(axes[1], importance)
    if several:
        _draw_agreement(axes[2], importance)
    figure.savefig(path, dpi=120)


def _draw_shares(axis: Any, importance: Importance) -> None:
    places = np.arange(len(importance.groups))
    size = 0.8 / len(importance.sources)
    for number, source in enumerate(importance.sources):
        label = f"{source} (Gini {importance.gini_S[number]:.2f})"
        axis.barh(places + number * size, importance.share_SG[number], height=size, label=label)
    fair = 1 / len(importance.groups)
    axis.axvline(fair, color="0.4", linestyle="--", linewidth=1, label="equal shares")
    axis.set_yticks(places + 0.4 - size / 2, importance.groups)
    axis.invert_yaxis()
    axis.set_xlabel("share of attributes won")
    axis.set_title("Who wins the attributes")
    axis.legend(fontsize=8)


def _draw_margins(axis: Any, importance: Importance) -> None:
    axis.boxplot(
        list(importance.margin_SA), tick_labels=importance.sources, showfliers=False, widths=0.5
    )
    axis.set_ylabel("lead of the winner over the runner-up")
    axis.set_title("How clearly")


def _draw_agreement(axis: Any, importance: Importance) -> None:
    names = importance.sources
    matrix = np.eye(len(names))
    for one in importance.agreements:
        row, column = names.index(one.one), names.index(one.other)
        matrix[row, column] = matrix[column, row] = one.spearman
    axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu")
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        colour = "white" if abs(value) > 0.6 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    axis.set_title("Rank agreement (Spearman)")
