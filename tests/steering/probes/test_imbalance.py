"""Imbalance modes do what they say; thresholds are the best there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from steering.errors import BadSteeringInput
from steering.probes.evaluation import evaluate
from steering.probes.imbalance import (
    IMBALANCE_MODES,
    ImbalanceMode,
    ImbalanceSpec,
    best_f1_threshold,
    oversampled_rows,
    positive_weight,
    sample_weights,
    tune_thresholds,
)
from steering.probes.methods import fit

Y = np.arange(1000) < 20


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("none", 1.0), ("pos_weight", 49.0), ("sqrt", 7.0), ("capped", 10.0), ("oversample", 49.0)],
)
def test_a_positive_counts_so_many_negatives(mode: ImbalanceMode, expected: float) -> None:
    weight = sample_weights(Y, mode)
    assert weight.mean() == pytest.approx(1.0)
    assert weight[Y].mean() / weight[~Y].mean() == pytest.approx(expected)
    assert positive_weight(20, 980, ImbalanceSpec(mode=mode)) == pytest.approx(expected)


def test_frequent_positives_count_less() -> None:
    """The published case: 5437 of 9000 positives weigh 0.66, and their root 0.81."""
    for mode, expected in (("pos_weight", 0.655), ("sqrt", 0.81), ("capped", 0.655)):
        spec = ImbalanceSpec.model_validate({"mode": mode})
        assert positive_weight(5437, 3563, spec) == pytest.approx(expected, abs=0.01)
    assert positive_weight(900, 100, ImbalanceSpec(mode="capped", cap=2)) == 0.5


def test_the_effective_number_lies_between_none_and_pos_weight() -> None:
    """Cui et al. 2019: beta 0 counts classes alike, beta near 1 by their frequency."""
    weights = [
        positive_weight(20, 980, ImbalanceSpec(mode="effective_number", beta=beta))
        for beta in (0.0, 0.9, 0.99, 0.999, 0.9999, 0.9999999)
    ]
    assert weights[0] == 1.0
    assert weights == sorted(weights)
    assert weights[-1] == pytest.approx(49.0, rel=1e-3)
    expected = ((1 - 0.999**980) / 0.001) / ((1 - 0.999**20) / 0.001)
    assert weights[3] == pytest.approx(expected)


def test_oversampling_keeps_every_row_and_evens_the_sides_out() -> None:
    rows = oversampled_rows(Y, seed=1)
    assert set(rows) == set(range(1000))
    assert Y[rows].sum() == (~Y[rows]).sum() == 980
    assert not np.array_equal(rows, oversampled_rows(Y, seed=2))
    assert np.array_equal(rows, oversampled_rows(Y, seed=1))
    few = ~Y
    assert few[oversampled_rows(few)].sum() == 980


def test_one_side_alone_is_refused() -> None:
    with pytest.raises(BadSteeringInput, match="0 positive and 5 negative"):
        sample_weights(np.zeros(5, bool), "pos_weight")


def test_weighting_makes_a_rare_label_be_called_and_hardly_moves_its_rank() -> None:
    """What weights change is where even odds lie; the threshold does the same for free."""
    random = np.random.default_rng(0)
    y = random.random(6000) < 0.04
    x = random.normal(size=(6000, 8))
    x[:, 0] += 1.5 * y
    recall, ranks = {}, {}
    for mode in IMBALANCE_MODES:
        fitted = fit(
            "logistic_l2", {"c": (1.0,)}, x[:3000], y[:3000], x[3000:4500], y[3000:4500],
            imbalance=mode,
        )  # fmt: skip
        found = evaluate(fitted.scores(x[4500:]), y[4500:], range(1500), resamples=0)
        recall[mode], ranks[mode] = found.labels[0].recall, found.value("auroc")
    assert recall["none"] < 0.15
    assert recall["none"] < recall["sqrt"] < recall["capped"] < recall["pos_weight"]
    assert recall["oversample"] == pytest.approx(recall["pos_weight"], abs=0.1)
    assert max(ranks.values()) - min(ranks.values()) < 0.02


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
@settings(deadline=None)
def test_no_threshold_has_a_larger_f1(rows: list[tuple[int, bool]]) -> None:
    score = np.array([float(value) for value, _ in rows])
    y = np.array([label for _, label in rows])
    threshold = best_f1_threshold(score, y)
    if not y.any():
        assert threshold == np.inf
        return
    best = max(f1_score(y, score >= value) for value in np.unique(score))
    assert f1_score(y, score >= threshold) == pytest.approx(best)


def test_thresholds_are_tuned_for_each_label() -> None:
    random = np.random.default_rng(0)
    y = random.random((500, 2)) < (0.5, 0.05)
    score = y + random.normal(size=y.shape) * 0.4 + (0, 10)
    threshold = tune_thresholds(score, y)
    assert 0 < threshold[0] < 1
    assert 10 < threshold[1] < 11.5
