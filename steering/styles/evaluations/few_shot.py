"""How many examples a group needs: a logistic head on the frozen embedding."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from steering.intervals import interval_of, mean_interval
from steering.styles.evaluations.embedded import Array, Embedded, EmbeddedParts, macro_accuracy
from steering.styles.evaluations.outcome import Figure, Outcome

logger = logging.getLogger(__name__)

NAME = "few_shot"

SHOTS = (1, 2, 4, 8, 16, 32, 64)
RESAMPLES = 20
MIN_TEST_ROWS = 2


def few_shot(
    parts: EmbeddedParts, shots: Sequence[int] = SHOTS, resamples: int = RESAMPLES, seed: int = 0
) -> Outcome:
    """Macro accuracy on test rows after k rows a group, for each k that every group has.

    The rows to learn from are drawn anew in each resample, of the pool that the model was not
    trained on. The interval is over resamples: what another draw of examples would give.
    Dimensions are scaled by the whole pool, which needs no labels.
    """
    pool, test = parts.pool, parts.test
    known = sorted(set(pool.rows.groups) & set(test.rows.groups))
    if len(known) < 2:
        return Outcome.skip(NAME, "fewer than two groups are both in the pool and the test rows")
    fewest = min(int((pool.groups == group).sum()) for group in known)
    possible = [k for k in shots if k <= fewest]
    figures, curve = [], {}
    for k in possible:
        found = [_once(pool, test, known, k, (seed, k, n)) for n in range(resamples)]
        curve[str(k)] = found
        interval = mean_interval(found)
        figures.append(Figure(f"k={k}", interval, resamples, 1 / len(known)))
        logger.info("few-shot: k=%d: %s", k, interval)
    notes = []
    if len(possible) < len(shots):
        notes.append(
            f"k up to {possible[-1] if possible else 0}: the smallest group has {fewest} rows that "
            "may be learned from"
        )
    return Outcome(NAME, figures, notes=notes, details={"accuracy_by_k": curve, "groups": known})


def head_accuracy(
    train: Embedded, test: Embedded, known: Sequence[str]
) -> tuple[Array, Array, Array]:
    """A logistic head on all of `train`: right, group number and item of each test row, [N]."""
    rows = np.flatnonzero(np.isin(test.groups, known))
    predicted = _fit_predict(
        train.embedding_NE, train.groups, test.embedding_NE[rows], train.embedding_NE
    )
    right_N = predicted == test.groups[rows]
    return right_N, _numbers(test.groups[rows], known), test.items[rows]


def _once(
    pool: Embedded, test: Embedded, known: Sequence[str], k: int, seed: tuple[int, int, int]
) -> float:
    random = np.random.default_rng(seed)
    rows = np.concatenate(
        [random.permutation(np.flatnonzero(pool.groups == group))[:k] for group in known]
    )
    own = np.flatnonzero(np.isin(test.groups, known))
    predicted = _fit_predict(
        pool.embedding_NE[rows], pool.groups[rows], test.embedding_NE[own], pool.embedding_NE
    )
    truth = test.groups[own]
    return macro_accuracy(predicted == truth, _numbers(truth, known))


def _fit_predict(x_ND: Array, groups: Array, test_ND: Array, scale_ND: Array) -> Array:
    from sklearn.linear_model import LogisticRegression

    mean_D, deviation_D = scale_ND.mean(axis=0), scale_ND.std(axis=0).clip(min=1e-6)
    head = LogisticRegression(max_iter=2000).fit((x_ND - mean_D) / deviation_D, groups)
    predicted: Array = head.predict((test_ND - mean_D) / deviation_D)
    return predicted


def _numbers(names: Array, known: Sequence[str]) -> Array:
    return np.searchsorted(np.asarray(known), names)


def accuracy_interval(right_N: Array, group_N: Array, items: Array) -> Figure:
    """Macro accuracy, resampled by items."""
    interval = interval_of(lambda rows: macro_accuracy(right_N[rows], group_N[rows]), items)
    return Figure("accuracy", interval, len(right_N))
