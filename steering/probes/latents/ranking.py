"""The latents of an SAE in the order in which they tell a label, with what to judge them by.

Shape suffixes: N = rows, F = latents, K = those that a k-sparse probe holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.latent_order import column_sums, order_by_difference
from steering.probes.latents.auroc import latent_auroc

__all__ = ["LatentRank", "RankBy", "rank_latents", "ranking_table"]

Array = np.ndarray[Any, Any]
RankBy = Literal["auroc", "mean_difference", "k_sparse"]


@dataclass(frozen=True)
class LatentRank:
    """One latent, for one label."""

    latent: int
    auroc: float
    """Above 0.5: it fires for the label; below: against it."""
    auroc_held_out: float | None
    """The same on rows that the ranking did not see; None without such rows."""
    mean_difference: float
    """Mean over positive rows less that over negative ones, in the SAE's units."""
    firing_rate: float
    """Share of all rows in which it is not zero."""
    firing_rate_positive: float
    firing_rate_negative: float
    mean_when_firing: float
    k_sparse_weight: float | None
    """In a logistic regression over the k latents of the largest scaled mean difference; None if
    it is not among them."""
    decoder_norm: float | None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def rank_latents(
    x_NF: Any,
    y_N: Array,
    *,
    by: RankBy = "auroc",
    top: int = 50,
    k: int = 16,
    held_out: tuple[Any, Array] | None = None,
    decoder_norm_F: Array | None = None,
    min_firing_rate: float = 0.0,
    seed: int = 0,
) -> list[LatentRank]:
    """The `top` latents for a label, of rows that are texts or tokens.

    With auroc the order is by distance from 0.5, so latents that fall silent for the label are
    found too; mean_difference is scaled by each latent's mean where it fires (sae-probes), so that
    latents of large scale do not win by that; k_sparse is by absolute weight.

    Args:
        x_NF: scipy CSR of latents, rows to rank on: the training part.
        y_N: bool.
        held_out: other rows and labels; of thousands of latents the best look better than they
            are on the rows that they were picked on.
        decoder_norm_F: to be shown beside them.
        min_firing_rate: latents that fire in a smaller share of the rows are left out.

    Raises:
        BadSteeringInput: rows of one class only, or an order that is not known.
    """
    if by not in get_args(RankBy):
        raise BadSteeringInput(f"by={by!r} is unknown; known: {', '.join(get_args(RankBy))}")
    y_N = np.asarray(y_N, dtype=bool).reshape(-1)
    auroc_F = latent_auroc(x_NF, y_N)[:, 0]
    order_F, difference_F = order_by_difference(x_NF, y_N, normalize=True)
    raw_F = column_sums(x_NF, y_N) / y_N.sum() - column_sums(x_NF, ~y_N) / (~y_N).sum()
    fires = abs(x_NF.sign()) if hasattr(x_NF, "sign") else (np.asarray(x_NF) != 0).astype(float)
    rate_F = column_sums(fires, np.ones(len(y_N))) / len(y_N)
    weight_of = _k_sparse_weights(x_NF, y_N, order_F[:k], seed)
    strength_F = {
        "auroc": np.abs(auroc_F - 0.5),
        "mean_difference": np.abs(difference_F),
        "k_sparse": _absolute(weight_of, len(auroc_F)),
    }[by]
    is_ranked_F = (rate_F > 0) & (rate_F >= min_firing_rate)
    best = np.argsort(-np.where(is_ranked_F, strength_F, -1.0), kind="stable")[:top]
    best = best[is_ranked_F[best]]
    tested = {}
    if held_out is not None and len(best):
        unseen = latent_auroc(held_out[0][:, best], held_out[1])[:, 0]
        tested = dict(zip(best.tolist(), unseen.tolist(), strict=True))
    some = fires[:, best]
    positive_K = column_sums(some, y_N) / y_N.sum()
    negative_K = column_sums(some, ~y_N) / (~y_N).sum()
    mean_K = column_sums(x_NF[:, best], np.ones(len(y_N))) / (len(y_N) * rate_F[best])
    return [
        LatentRank(
            latent=latent,
            auroc=float(auroc_F[latent]),
            auroc_held_out=tested.get(latent),
            mean_difference=float(raw_F[latent]),
            firing_rate=float(rate_F[latent]),
            firing_rate_positive=float(positive_K[place]),
            firing_rate_negative=float(negative_K[place]),
            mean_when_firing=float(mean_K[place]),
            k_sparse_weight=weight_of.get(latent),
            decoder_norm=None if decoder_norm_F is None else float(decoder_norm_F[latent]),
        )
        for place, latent in enumerate(best.tolist())
    ]


def ranking_table(ranks: Sequence[LatentRank]) -> str:
    """The ranking for people: a line a latent."""
    lines = ["latent   auroc  unseen  mean diff   fires  if pos  if neg   weight"]
    for one in ranks:
        unseen = "     -" if one.auroc_held_out is None else f"{one.auroc_held_out:6.3f}"
        weight = "       -" if one.k_sparse_weight is None else f"{one.k_sparse_weight:8.3f}"
        lines.append(
            f"{one.latent:6d}  {one.auroc:6.3f}  {unseen}  {one.mean_difference:9.3g}  "
            f"{one.firing_rate:6.3f}  {one.firing_rate_positive:6.3f}  "
            f"{one.firing_rate_negative:6.3f}  {weight}"
        )
    return "\n".join(lines)


def _k_sparse_weights(x_NF: Any, y_N: Array, chosen_K: Array, seed: int) -> dict[int, float]:
    """Weights of a logistic regression over these latents, each scaled to deviation one."""
    from sklearn.linear_model import LogisticRegression

    some = x_NF[:, chosen_K]
    x_NK = np.asarray(some.toarray() if hasattr(some, "toarray") else some, dtype=np.float64)
    deviation_K = x_NK.std(axis=0)
    deviation_K[deviation_K == 0] = 1.0
    model = LogisticRegression(C=1.0, max_iter=1000, random_state=seed)
    model.fit((x_NK - x_NK.mean(axis=0)) / deviation_K, y_N)
    return dict(zip(chosen_K.tolist(), model.coef_[0].tolist(), strict=True))


def _absolute(weight_of: dict[int, float], width: int) -> Array:
    weight_F = np.zeros(width)
    for latent, weight in weight_of.items():
        weight_F[latent] = abs(weight)
    return weight_F
