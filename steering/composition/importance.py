"""Which attributes set groups apart, by each source of style vectors, and whether sources agree.

numpy and scipy. Shape suffixes: G = groups, A = attributes, S = sources.

An attribute is won by the group that has most of it; its margin is the lead over the runner-up. A
source in which one group wins nearly everything tells how its scorer treats that group's texts, not
what their style is.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from steering.composition.weights import runner_up_gap
from steering.errors import BadSteeringInput

__all__ = ["Agreement", "Importance", "attribute_importance"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Agreement:
    """How alike two sources rank the attributes of each group; means over groups."""

    one: str
    other: str
    spearman: float
    kendall: float
    same_winner: float
    """Share of attributes that the same group wins in both."""


@dataclass(frozen=True)
class Importance:
    """Of each source which group wins which attribute, and by how much."""

    sources: tuple[str, ...]
    groups: tuple[str, ...]
    ids: tuple[str, ...]
    winner_SA: Array
    """Place of the group that has most of an attribute."""
    margin_SA: Array
    """Its lead over the runner-up, in the units of the source."""
    agreements: tuple[Agreement, ...]

    @property
    def share_SG(self) -> Array:
        """Share of the attributes that a group wins."""
        size = len(self.groups)
        counts = [np.bincount(winner_A, minlength=size) for winner_A in self.winner_SA]
        share_SG: Array = np.stack(counts) / len(self.ids)
        return share_SG

    @property
    def gini_S(self) -> Array:
        """Gini coefficient of the shares: 0 where all groups win as many, near 1 where one wins."""
        ordered_SG = np.sort(self.share_SG, axis=1)
        size = len(self.groups)
        rank_G = np.arange(1, size + 1)
        gini_S: Array = (2 * rank_G - size - 1) @ ordered_SG.T / (size * ordered_SG.sum(axis=1))
        return gini_S

    @property
    def entropy_S(self) -> Array:
        """Entropy of the shares over that of equal ones: 1 where all groups win as many."""
        share_SG = np.where(self.share_SG > 0, self.share_SG, 1.0)
        entropy_S: Array = (share_SG * -np.log(share_SG)).sum(axis=1) / np.log(len(self.groups))
        return entropy_S

    def top(self, source: str, group: str, count: int = 5) -> list[tuple[str, float]]:
        """(id, margin) of the attributes that a group wins by most."""
        place, own = self.sources.index(source), self.groups.index(group)
        won = np.flatnonzero(self.winner_SA[place] == own)
        margin_A = self.margin_SA[place]
        order = won[np.argsort(-margin_A[won], kind="stable")[:count]]
        return [(self.ids[attribute], float(margin_A[attribute])) for attribute in order]

    def rows(self) -> list[dict[str, Any]]:
        """A row a source and group: share won, mean margin of what it won, its top attributes."""
        found = []
        for place, source in enumerate(self.sources):
            for own, group in enumerate(self.groups):
                margins = self.margin_SA[place][self.winner_SA[place] == own]
                found.append(
                    {
                        "source": source,
                        "group": group,
                        "won": len(margins),
                        "share_won": float(self.share_SG[place, own]),
                        "mean_margin": float(margins.mean()) if len(margins) else 0.0,
                        "top": "; ".join(one for one, _ in self.top(source, group)),
                    }
                )
        return found

    def source_rows(self) -> list[dict[str, Any]]:
        """A row a source: how unequal the groups' shares are, and the median margin."""
        return [
            {
                "source": source,
                "largest_share": float(self.share_SG[place].max()),
                "largest_group": self.groups[int(self.share_SG[place].argmax())],
                "gini": float(self.gini_S[place]),
                "entropy": float(self.entropy_S[place]),
                "median_margin": float(np.median(self.margin_SA[place])),
            }
            for place, source in enumerate(self.sources)
        ]

    def write(self, folder: Path) -> list[Path]:
        """groups.csv, sources.csv, agreement.csv and importance.png in a folder."""
        from steering.composition.importance_picture import draw_importance

        folder.mkdir(parents=True, exist_ok=True)
        tables = {"groups": self.rows(), "sources": self.source_rows()}
        tables["agreement"] = [dict(vars(one)) for one in self.agreements]
        written = [_write_csv(folder / f"{name}.csv", rows) for name, rows in tables.items()]
        picture = folder / "importance.png"
        draw_importance(self, picture)
        return [*(path for path in written if path), picture]


def attribute_importance(
    style_GA_by_source: Mapping[str, Array], groups: Sequence[str], ids: Sequence[str]
) -> Importance:
    """Compare sources such as data, sfam and regressor.

    Args:
        style_GA_by_source: a style vector for each group, as `group_styles` gives them.

    Raises:
        BadSteeringInput: no source, fewer than two groups or attributes, or other lengths.
    """
    shapes = {source: np.shape(style) for source, style in style_GA_by_source.items()}
    wrong = {s: shape for s, shape in shapes.items() if shape != (len(groups), len(ids))}
    if not shapes or wrong or len(groups) < 2 or len(ids) < 2:
        raise BadSteeringInput(
            f"{len(groups)} groups, {len(ids)} attributes, sources {wrong or list(shapes)}; give "
            "[groups, attributes] for at least one source, with at least two of each"
        )
    styles = {s: np.asarray(style, dtype=np.float64) for s, style in style_GA_by_source.items()}
    if broken := [source for source, style in styles.items() if not np.isfinite(style).all()]:
        raise BadSteeringInput(
            f"sources {', '.join(broken)} hold NaN or infinite numbers; score their texts again"
        )
    won = [runner_up_gap(style_GA) for style_GA in styles.values()]
    return Importance(
        tuple(styles),
        tuple(groups),
        tuple(ids),
        np.stack([winner_A for winner_A, _ in won]),
        np.stack([margin_A for _, margin_A in won]),
        tuple(_agreement(one, other, styles) for one, other in combinations(styles, 2)),
    )


def _agreement(one: str, other: str, styles: Mapping[str, Array]) -> Agreement:
    """Ranks of attributes within a group, by how much more the group has than the mean group."""
    from scipy.stats import kendalltau, spearmanr

    centred = [styles[name] - styles[name].mean(axis=0) for name in (one, other)]
    winners = [styles[name].argmax(axis=0) for name in (one, other)]
    pairs = [(a, b) for a, b in zip(*centred, strict=True) if np.ptp(a) > 0 and np.ptp(b) > 0]
    spearman = [float(spearmanr(a, b).statistic) for a, b in pairs]
    kendall = [float(kendalltau(a, b).statistic) for a, b in pairs]
    return Agreement(
        one,
        other,
        float(np.mean(spearman)) if pairs else float("nan"),
        float(np.mean(kendall)) if pairs else float("nan"),
        float((winners[0] == winners[1]).mean()),
    )


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path | None:
    if not rows:
        return None
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
