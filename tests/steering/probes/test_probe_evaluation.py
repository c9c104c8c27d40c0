"""Numbers of a probe are scikit-learn's, intervals are over items, accuracy is no objective."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as rival

from steering.errors import BadSteeringInput
from steering.intervals import interval_of
from steering.probes.evaluation import OBJECTIVES, check_objective, evaluate, majority_share
from steering.probes.ranking_metrics import RankedLabel, auroc, average_precision


def _scored(rows: int = 400, labels: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Scores with many ties, labels of different rarity."""
    random = np.random.default_rng(seed)
    y = random.random((rows, labels)) < np.linspace(0.5, 0.1, labels)
    return np.round(y + random.normal(size=y.shape), 1), y


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60),
    st.integers(0, 2**16),
)
@settings(deadline=None)
def test_ranking_numbers_are_scikit_learns_with_ties_and_with_weights(
    rows: list[tuple[int, bool]], seed: int
) -> None:
    score = np.array([float(value) for value, _ in rows])
    y = np.array([label for _, label in rows])
    if y.all() or not y.any():
        assert np.isnan(auroc(score, y))
        return
    assert auroc(score, y) == pytest.approx(rival.roc_auc_score(y, score))
    assert average_precision(score, y) == pytest.approx(rival.average_precision_score(y, score))
    weight = np.random.default_rng(seed).integers(0, 4, len(rows)).astype(float)
    drawn = np.repeat(np.arange(len(rows)), weight.astype(int))
    ranked = RankedLabel(score, y)
    if y[drawn].any() and not y[drawn].all():
        assert ranked.auroc(weight) == pytest.approx(rival.roc_auc_score(y[drawn], score[drawn]))
        assert ranked.average_precision(weight) == pytest.approx(
            rival.average_precision_score(y[drawn], score[drawn])
        )


def test_multilabel_numbers_are_scikit_learns() -> None:
    score, y = _scored()
    threshold = np.array([0.4, 0.6, 0.9])
    found = evaluate(score, y, range(400), task="multilabel", thresholds=threshold, resamples=10)
    called = score >= threshold
    expected = {
        "auroc": rival.roc_auc_score(y, score),
        "auprc": rival.average_precision_score(y, score),
        "macro_f1": rival.f1_score(y, called, average="macro"),
        "micro_f1": rival.f1_score(y, called, average="micro"),
        "accuracy": rival.accuracy_score(y, called),
        "balanced_accuracy": np.mean(
            [rival.balanced_accuracy_score(y[:, n], called[:, n]) for n in range(3)]
        ),
    }
    assert set(expected) == set(OBJECTIVES)
    for name, value in expected.items():
        assert found.value(name) == pytest.approx(value), name
    second = found.labels[1]
    assert second.f1.estimate == pytest.approx(rival.f1_score(y[:, 1], called[:, 1]))
    assert second.precision == pytest.approx(rival.precision_score(y[:, 1], called[:, 1]))
    assert second.recall == pytest.approx(rival.recall_score(y[:, 1], called[:, 1]))


def test_binary_and_multiclass_numbers_are_scikit_learns() -> None:
    score, y = _scored(labels=1)
    found = evaluate(score, y, range(400), resamples=0)
    called = score >= 0
    assert found.value("macro_f1") == pytest.approx(rival.f1_score(y, called, average="macro"))
    assert found.value("accuracy") == pytest.approx(rival.accuracy_score(y, called))
    assert found.value("balanced_accuracy") == pytest.approx(
        rival.balanced_accuracy_score(y[:, 0], called[:, 0])
    )
    random = np.random.default_rng(0)
    class_N = random.integers(0, 4, 300)
    one_hot = np.arange(4) == class_N[:, None]
    scores = one_hot + random.normal(size=one_hot.shape)
    found = evaluate(scores, one_hot, range(300), task="multiclass", resamples=0)
    taken = scores.argmax(axis=1)
    assert found.value("accuracy") == pytest.approx(rival.accuracy_score(class_N, taken))
    assert found.value("macro_f1") == pytest.approx(rival.f1_score(class_N, taken, average="macro"))
    assert found.value("balanced_accuracy") == pytest.approx(
        rival.balanced_accuracy_score(class_N, taken)
    )
    assert found.value("auroc") == pytest.approx(
        rival.roc_auc_score(one_hot, scores, average="macro")
    )


def test_intervals_are_those_of_the_cluster_bootstrap() -> None:
    score, y = _scored(rows=120, labels=1)
    items = [f"item {number // 3}" for number in range(120)]
    found = evaluate(score, y, items, resamples=200, seed=4)
    expected = interval_of(
        lambda rows: float(rival.roc_auc_score(y[rows, 0], score[rows, 0])),
        items,
        seed=4,
        resamples=200,
    )
    got = found.metrics["auroc"]
    assert (got.estimate, got.low, got.high) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )


def test_rows_of_few_items_give_wide_intervals() -> None:
    """Copies of a row are no evidence."""
    score, y = _scored(rows=60, labels=1)
    alone = evaluate(score, y, range(60), resamples=300).metrics["auroc"]
    copied = evaluate(
        np.repeat(score, 20, axis=0), np.repeat(y, 20, axis=0), np.repeat(range(60), 20),
        resamples=300,
    ).metrics["auroc"]  # fmt: skip
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, abs=1e-6)


def test_a_label_without_positives_is_named_and_left_out_of_means() -> None:
    score, y = _scored()
    y[:, 2] = False
    found = evaluate(
        score, y, range(400), task="multilabel", label_names=["a", "b", "c"], resamples=20
    )
    assert found.undefined == ("c",)
    assert found.value("auroc") == pytest.approx(rival.roc_auc_score(y[:, :2], score[:, :2]))
    text = json.dumps(found.as_json(), allow_nan=False)
    assert json.loads(text)["labels"][2]["auroc"]["estimate"] is None


def test_curves_run_from_end_to_end_and_are_thinned() -> None:
    random = np.random.default_rng(0)
    y = random.random(5000) < 0.2
    score = y + random.normal(size=5000)
    label = evaluate(score, y, range(5000), resamples=0).labels[0]
    for low, high in ((0, 0), (-1, 1)):
        assert label.roc["false_positive_rate"][low] == high
        assert label.roc["true_positive_rate"][low] == high
    assert len(label.roc["true_positive_rate"]) <= 201
    area = np.trapezoid(label.roc["true_positive_rate"], label.roc["false_positive_rate"])
    assert area == pytest.approx(label.auroc.estimate, abs=0.005)
    recall, precision, threshold = (
        label.precision_recall[name] for name in ("recall", "precision", "threshold")
    )
    assert recall == sorted(recall)
    assert recall[-1] == 1.0
    assert precision[-1] == pytest.approx(y.mean())
    assert threshold == sorted(threshold, reverse=True)


def test_accuracy_is_refused_as_objective_of_a_lopsided_label() -> None:
    y = np.arange(100) < 9
    with pytest.raises(BadSteeringInput, match=r"91\.0% of the rows.*take auroc"):
        check_objective("accuracy", y, "binary")
    check_objective("auroc", y, "binary")
    check_objective("accuracy", np.arange(100) < 40, "binary")
    classes = np.arange(3) == np.repeat([0, 1, 2], [85, 10, 5])[:, None]
    with pytest.raises(BadSteeringInput, match=r"85\.0%"):
        check_objective("accuracy", classes, "multiclass")
    assert majority_share(classes, "multiclass") == pytest.approx(0.85)
    with pytest.raises(BadSteeringInput, match="known objectives: auroc"):
        check_objective("f2", y, "binary")


def test_what_does_not_fit_is_refused() -> None:
    score, y = _scored()
    with pytest.raises(BadSteeringInput, match="equally many"):
        evaluate(score[:, :2], y, range(400), task="multilabel")
    with pytest.raises(BadSteeringInput, match="say multiclass or multilabel"):
        evaluate(score, y, range(400))
    with pytest.raises(BadSteeringInput, match="exactly one class"):
        evaluate(score, y, range(400), task="multiclass")
    with pytest.raises(BadSteeringInput, match="at least two"):
        evaluate(score, y, ["same"] * 400, task="multilabel")
    with pytest.raises(BadSteeringInput, match="known metrics: auroc"):
        evaluate(score, y, range(400), task="multilabel", resamples=0).value("map")


def test_without_resamples_rows_of_one_item_have_numbers_and_no_interval() -> None:
    y = np.array([True, False, True, False])
    found = evaluate(np.array([0.9, 0.1, 0.8, 0.2]), y, ["one"] * 4, resamples=0)
    assert found.value("auroc") == 1.0
    assert np.isnan(found.metrics["auroc"].low)
    with pytest.raises(BadSteeringInput, match="1 items are too few for an interval"):
        evaluate(np.array([0.9, 0.1, 0.8, 0.2]), y, ["one"] * 4)
