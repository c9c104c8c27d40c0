"""The k-sparse score of an SAE: how well its k best latents tell a label. One number a k.

As in sae-probes (Kantamneni et al. 2025; version 0.4.2): latents by class mean difference relative
to their mean activation, a logistic regression over the raw chosen ones, C from 1e5 to 1e-5 by
AUROC on rows held out of training, test AUROC of the refit. Of the SAEBench family this score is
the one that two seeds of an SAE agree on most (Chanin 2026).
Shape suffixes: N = rows, F = latents, K = chosen ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import Interval
from steering.probes.latent_order import chosen_columns, order_by_difference
from steering.probes.logistic import LogisticFit, Penalty, Solver, logistic_path
from steering.probes.matrices import Array, Matrix, as_features, as_labels, times
from steering.probes.ranking_metrics import RankedLabel, auroc
from steering.probes.resampling import resampled_intervals

__all__ = ["KSparseScore", "KSparseScores", "k_sparse_score"]

logger = logging.getLogger(__name__)

CS = tuple(np.logspace(5, -5, 10).tolist())
DEFAULT_KS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MAX_HELD_OUT = 100
"""Of the training rows a fifth is held out to choose C, and at most so many."""
Folds = list[tuple[Array, Array]]


@dataclass(frozen=True)
class KSparseScore:
    """The score with k latents."""

    k: int
    test_auroc: float
    validation_auroc: float
    c: float
    latents: tuple[int, ...]
    """The chosen ones, the largest class mean difference first."""
    weights: tuple[float, ...]
    """Of the raw latents, in the same order."""
    interval: Interval
    """Of the test AUROC, over test items."""


@dataclass(frozen=True)
class KSparseScores:
    """Scores of one SAE on one label."""

    by_k: dict[int, KSparseScore]

    def value(self, k: int) -> float:
        """The test AUROC with k latents: the number for an objective.

        Raises:
            BadSteeringInput: k was not measured.
        """
        if k not in self.by_k:
            raise BadSteeringInput(
                f"k={k} was not measured; measured: {', '.join(map(str, self.by_k))}"
            )
        return self.by_k[k].test_auroc

    def metrics(self) -> dict[str, float]:
        """`k_sparse_auroc.1`, `k_sparse_auroc.16`, ... as numbers of a trial."""
        return {f"k_sparse_auroc.{k}": score.test_auroc for k, score in self.by_k.items()}


def k_sparse_score(
    x_train: Matrix,
    y_train: Any,
    x_test: Matrix,
    y_test: Any,
    ks: Sequence[int] = DEFAULT_KS,
    *,
    items_train: Sequence[Any] | Array | None = None,
    items_test: Sequence[Any] | Array | None = None,
    penalty: Penalty = "l2",
    normalize: bool = True,
    seed: int = 42,
    resamples: int = 1000,
) -> KSparseScores:
    """Test AUROC of a binary label with each k.

    C is chosen inside the training rows: leave-two-out up to 12 rows, six folds below 128, else a
    fifth held out. Latents are ordered by all training rows, those held out included, as the
    package does: the score compares SAEs, and a probe's own honest number is `methods.fit`'s.

    Args:
        x_train: latents [N, F], CSR or dense; x_test likewise.
        ks: those above F are left out, with a warning.
        items_train: what rows belong to; given, rows held out are of other items than the rest.
        items_test: for the interval; None for each row its own.
        penalty: l2, or l1 by the package's solver saga, slow and often short of its optimum.
        normalize: order latents relative to their mean activation where they fire.
        resamples: for the interval; 0 for none.

    Raises:
        BadSteeringInput: a part with one class only, or shapes that do not fit.
    """
    x_train, x_test = as_features(x_train, "x_train"), as_features(x_test, "x_test")
    y_N = _one_label(y_train, x_train.shape[0], "y_train")
    y_test_N = _one_label(y_test, x_test.shape[0], "y_test")
    usable = [k for k in ks if 1 <= k <= x_train.shape[1]]
    if not usable:
        raise BadSteeringInput(f"ks={list(ks)} must be from 1 to the {x_train.shape[1]} latents")
    if left_out := sorted(set(ks) - set(usable)):
        logger.warning("k-sparse score: k=%s not in 1..%d, left out", left_out, x_train.shape[1])
    order_F, _ = order_by_difference(x_train, y_N, normalize=normalize)
    top_K = order_F[: max(usable)]
    train_NK = chosen_columns(x_train, top_K)
    test_NK = chosen_columns(x_test, top_K)
    folds = _folds(y_N, items_train, seed)
    units = items_test if items_test is not None else range(len(y_test_N))
    # The package mixes the rows before the last fit, which saga's steps depend on.
    mixed_N = np.random.RandomState(seed).permutation(len(y_N))
    by_k = {}
    for k in usable:
        c, validation = _best_c(train_NK[:, :k], y_N, folds, penalty, seed)
        (fitted,) = _path(train_NK[mixed_N, :k], y_N[mixed_N], [c], penalty, seed)
        score_N = times(test_NK[:, :k], fitted.weight_D) + fitted.bias
        interval = _interval(score_N, y_test_N, units, seed, resamples)
        by_k[k] = KSparseScore(
            k, interval.estimate, validation, c, tuple(top_K[:k].tolist()),
            tuple(fitted.weight_D.tolist()), interval,
        )  # fmt: skip
    return KSparseScores(by_k)


def _one_label(y: Any, rows: int, name: str) -> Array:
    y_NL = as_labels(y, rows, name)
    if y_NL.shape[1] != 1:
        raise BadSteeringInput(f"{name} has {y_NL.shape[1]} labels; score them one at a time")
    if y_NL.all() or not y_NL.any():
        raise BadSteeringInput(f"{name} has one class only; both are needed for an AUROC")
    return y_NL[:, 0]


def _interval(
    score_N: Array, y_N: Array, units: Sequence[Any] | Array, seed: int, resamples: int
) -> Interval:
    ranked = RankedLabel(score_N, y_N)
    return resampled_intervals(
        lambda weight_N: {"auroc": ranked.auroc(weight_N)}, units, seed=seed, resamples=resamples
    )["auroc"]


def _best_c(
    x: Matrix, y_N: Array, folds: Folds, penalty: Penalty, seed: int
) -> tuple[float, float]:
    """The C with the best mean AUROC over the folds, of equal ones the largest; and that AUROC."""
    if not folds:
        return 1.0, float("nan")
    value_FC = np.full((len(folds), len(CS)), 0.5)
    for number, (train, held_out) in enumerate(folds):
        if y_N[train].all() or not y_N[train].any():
            continue
        for place, fitted in enumerate(_path(x[train], y_N[train], CS[::-1], penalty, seed)):
            score_N = times(x[held_out], fitted.weight_D)
            value_FC[number, len(CS) - 1 - place] = auroc(score_N, y_N[held_out])
    mean_C = value_FC.mean(axis=0)
    best = int(np.argmax(mean_C))
    return CS[best], float(mean_C[best])


def _path(
    x: Matrix, y_N: Array, cs: Sequence[float], penalty: Penalty, seed: int
) -> Iterator[LogisticFit]:
    """The package's solvers: L-BFGS, and saga for L1."""
    solver: Solver = "lbfgs" if penalty == "l2" else "saga"
    return logistic_path(x, y_N, None, cs, penalty=penalty, solver=solver, seed=seed)


def _folds(y_N: Array, items: Sequence[Any] | Array | None, seed: int) -> Folds:
    """Rows to train and to choose C on, each with both classes among the latter."""
    count = len(y_N)
    if count <= 3:
        return []
    splits = _by_item(y_N, items, seed) if items is not None else _by_row(y_N, seed)
    folds = [
        (train, held_out)
        for train, held_out in splits
        if y_N[held_out].any() and not y_N[held_out].all()
    ]
    if not folds:
        logger.warning("k-sparse score: no fold of %d rows has both classes; C=1", count)
    return folds


def _by_row(y_N: Array, seed: int) -> Iterator[tuple[Array, Array]]:
    from sklearn.model_selection import StratifiedKFold

    count = len(y_N)
    rows = np.arange(count)
    if count <= 12:
        for pair in combinations(range(count), 2):
            yield np.delete(rows, pair), np.array(pair)
    elif count < 128:
        splits = min(6, int(y_N.sum()), int((~y_N).sum()))
        if splits > 1:
            yield from StratifiedKFold(splits, shuffle=True, random_state=seed).split(rows, y_N)
    else:
        held_out = min(int(0.2 * count), MAX_HELD_OUT)
        last = y_N[-held_out:]
        if last.any() and not last.all():
            yield rows[:-held_out], rows[-held_out:]
        else:
            # Rows sorted by label: the last ones, which the package takes, have one class.
            folds = StratifiedKFold(5, shuffle=True, random_state=seed)
            yield next(iter(folds.split(rows, y_N)))


def _by_item(y_N: Array, items: Sequence[Any] | Array, seed: int) -> Iterator[tuple[Array, Array]]:
    from sklearn.model_selection import StratifiedGroupKFold

    _, item_N = np.unique(np.asarray(items, dtype=str), return_inverse=True)
    splits = min(6 if len(y_N) < 128 else 5, int(item_N.max()) + 1)
    if splits < 2:
        return
    folds = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    for train, held_out in folds.split(y_N, y_N, item_N):
        yield train, held_out
        if len(y_N) >= 128:
            return
