"""Random latents that fire as often as the chosen ones: what any such latents would score.

Shape suffixes: N = rows, F = latents, K = chosen ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.controls.seeds import SeedSummary, over_seeds
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec
from steering.probes.matrices import Array, Matrix, is_sparse, row_pieces
from steering.probes.parts import Parts, fit_parts, macro_auroc

__all__ = ["firing_rates", "matched_random_latents", "random_latents_control"]

NEAREST = 10
"""A stand-in is drawn from so many latents whose rates are nearest."""


def firing_rates(x: Matrix) -> Array:
    """Share of the rows in which each latent is not 0, float64 [F]."""
    count, width = x.shape
    if is_sparse(x):
        return np.bincount(x.indices[x.data != 0], minlength=width) / count
    fired_F = np.zeros(width)
    for rows in row_pieces(x):
        fired_F += np.asarray(x[rows] != 0).sum(axis=0)
    return fired_F / count


def matched_random_latents(rate_F: Array, chosen_K: Sequence[int] | Array, *, seed: int) -> Array:
    """For each chosen latent another one of nearly the same firing rate, none twice, [K].

    Raises:
        BadSteeringInput: too few other latents that fire at all.
    """
    chosen = np.asarray(chosen_K, dtype=np.int64)
    is_free_F = rate_F > 0
    is_free_F[chosen] = False
    if is_free_F.sum() < len(chosen):
        raise BadSteeringInput(
            f"{len(chosen)} stand-ins are needed, and only {int(is_free_F.sum())} other latents "
            "fire on the training rows; choose fewer latents or a wider SAE"
        )
    random = np.random.default_rng(seed)
    log_rate_F = np.log(np.maximum(rate_F, np.finfo(float).tiny))
    out = np.empty(len(chosen), dtype=np.int64)
    # In random order: the last ones have fewer to choose from.
    for place in random.permutation(len(chosen)):
        free = np.flatnonzero(is_free_F)
        distance = np.abs(log_rate_F[free] - log_rate_F[chosen[place]])
        near = free[np.argsort(distance, kind="stable")[:NEAREST]]
        out[place] = random.choice(near)
        is_free_F[out[place]] = False
    return out


def random_latents_control(
    parts: Parts,
    chosen_K: Sequence[int] | Array,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
) -> SeedSummary:
    """Test AUROC of logistic regressions over random latents matched to these, over seeds.

    Raises:
        BadSteeringInput: fewer than three seeds, or too few latents.
    """
    rate_F = firing_rates(parts.train.x)
    values = []
    for seed in seeds:
        own = parts.columns(matched_random_latents(rate_F, chosen_K, seed=seed))
        fitted = fit_parts("logistic_l2", {}, own, imbalance=imbalance, seed=seed)
        values.append(macro_auroc(fitted.scores(own.test.x), own.test.y_NL))
    return over_seeds(values)
