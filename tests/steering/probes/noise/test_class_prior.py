"""The share of the certain side among uncertain rows, from their scores."""

from __future__ import annotations

import numpy as np
import pytest

from steering.errors import BadSteeringInput
from steering.probes.noise.class_prior import best_bin_share, estimated_share
from tests.steering.probes.planted_rows import directions


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_the_planted_share_is_found(share: float) -> None:
    x, y = directions(rows=6000, width=10, gap=4.0)
    known = y & (np.arange(len(y)) % 2 == 0)
    others = np.flatnonzero(~known)
    positives, negatives = others[y[others]], others[~y[others]]
    ratio = share / (1 - share)
    if len(positives) > ratio * len(negatives):
        positives = positives[: round(ratio * len(negatives))]
    else:
        negatives = negatives[: round(len(positives) / ratio)]
    rows = np.sort(np.concatenate([np.flatnonzero(known), positives, negatives]))
    assert estimated_share(x[rows] - 3.0, known[rows]) == pytest.approx(share, abs=0.08)


def test_scores_that_tell_nothing_call_all_others_known() -> None:
    score = np.random.default_rng(0).normal(size=4000)
    assert best_bin_share(score[:2000], score[2000:]) > 0.9


def test_scores_that_tell_all_call_none_known() -> None:
    score = np.random.default_rng(0).normal(size=4000)
    assert best_bin_share(score[:2000] + 50, score[2000:]) < 0.01


def test_too_few_rows_are_refused_with_the_way_out() -> None:
    x, y = directions(rows=60)
    with pytest.raises(BadSteeringInput, match="declare it"):
        estimated_share(x, y & (np.arange(60) < 20))
