"""Methods that read texts as bags of tokens, and PU learning on tokens whose texts are labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from steering.errors import BadSteeringInput
from steering.probes.imbalance import IMBALANCE_MODES, ImbalanceMode
from steering.probes.matrices import Bags, bags_of
from steering.probes.method import FittedProbe
from steering.probes.methods import METHODS, fit
from steering.probes.noise.label_flips import flip_labels
from steering.probes.noise.token_bags import TokenBags, pool_scores
from steering.probes.parts import Parts, fit_parts
from steering.probes.ranking_metrics import auroc
from tests.steering.probes.planted_rows import directions, haystack

OF_BAGS = sorted(name for name, method in METHODS.items() if method.reads_bags)
FAST: dict[str, Any] = {"weight_decay": (0.01,), "epochs": (10, 40)}
SHORT: dict[str, Any] = {"weight_decay": (0.01,), "epochs": (1, 2)}


def _bags(bags: TokenBags, *, sparse: bool = False) -> Bags:
    values = bags.values_TD
    if sparse:
        values = csr_matrix(np.where(values > 0.5, values, 0))
    return bags_of(values, bags.offsets_I1)


def _parts(*, sparse: bool = False, items: int = 500, width: int = 8) -> Parts:
    """Three fifths of the texts to train on, a fifth to choose on, a fifth to test on."""
    whole, _ = haystack(items, 0, width=width)
    first, second = items * 3 // 5, items * 4 // 5
    rows = {
        "train": range(first), "validation": range(first, second), "test": range(second, items),
    }  # fmt: skip
    return Parts.of(_bags(whole, sparse=sparse), whole.y_IL, range(items), rows)


def test_the_registry_has_bags_pooled_by_the_best_token_and_by_attention() -> None:
    assert OF_BAGS == ["multiple_instance_attention", "multiple_instance_max"]


@pytest.mark.parametrize("name", OF_BAGS)
@pytest.mark.parametrize("sparse", [False, True])
def test_every_bag_method_finds_the_needle_that_the_mean_of_the_tokens_loses(
    name: str, sparse: bool
) -> None:
    parts = _parts(sparse=sparse, width=16)
    by_mean = parts.with_features(
        *(pool_scores(_dense(part.x), part.x.offsets_I1, "mean") for part in parts.all)
    )
    test = parts.test
    pooled = fit_parts("logistic_l2", {}, by_mean).scores(by_mean.test.x)[:, 0]
    fitted = fit_parts(name, FAST, parts)
    found = auroc(fitted.scores(test.x)[:, 0], test.y_NL[:, 0])
    assert found > 0.95
    assert found > auroc(pooled, test.y_NL[:, 0]) + 0.03
    assert fitted.columns(0)[0] == 0
    assert fitted.token_scores(test.x).shape == (test.x.values_TD.shape[0], 1)
    label = fitted.labels[0]
    assert len(label.tried) == 2
    assert label.validation_score == max(score for _, score in label.tried)


def _dense(bags: Bags) -> Any:
    values = bags.values_TD
    return values.toarray() if hasattr(values, "toarray") else values


@pytest.mark.parametrize("name", OF_BAGS)
@pytest.mark.parametrize("sparse", [False, True])
def test_training_begins_with_the_way_between_the_means(name: str, sparse: bool) -> None:
    bags, _ = haystack(80, 1)
    x = _bags(bags, sparse=sparse)
    still: dict[str, Any] = {"learning_rate": 1e-12, "epochs": (1,), "standardize": False}
    weight_D = fit(name, still, x, bags.y_IL, x, bags.y_IL).weights()[0]
    mean_ID = pool_scores(_dense(x), x.offsets_I1, "mean")
    y = bags.y_IL[:, 0]
    way_D = mean_ID[y].mean(axis=0) - mean_ID[~y].mean(axis=0)
    cosine = weight_D @ way_D / np.linalg.norm(weight_D) / np.linalg.norm(way_D)
    assert cosine > 0.9999


@pytest.mark.parametrize("name", OF_BAGS)
def test_a_saved_bag_probe_scores_the_same_and_a_seed_repeats_it(name: str, tmp_path: Path) -> None:
    parts = _parts(items=100)
    both = np.concatenate([parts.train.y_NL, ~parts.train.y_NL], axis=1)
    two = (both, *(np.concatenate([p.y_NL, ~p.y_NL], axis=1) for p in parts.all[1:]))
    labelled = parts.with_labels(*two)
    fitted = fit_parts(name, SHORT, labelled, seed=3)
    fitted.save(tmp_path / "probe")
    loaded = FittedProbe.load(tmp_path / "probe")
    x = parts.test.x
    assert np.array_equal(loaded.scores(x), fitted.scores(x))
    assert np.array_equal(loaded.token_scores(x), fitted.token_scores(x))
    again = fit_parts(name, SHORT, labelled, seed=3)
    assert np.array_equal(again.scores(x), fitted.scores(x))
    other = labelled.with_labels(two[0], two[1], ~two[2])
    assert np.array_equal(fit_parts(name, SHORT, other, seed=3).scores(x), fitted.scores(x))


@pytest.mark.parametrize("name", OF_BAGS)
@pytest.mark.parametrize("mode", IMBALANCE_MODES)
def test_every_bag_method_takes_every_imbalance_mode(name: str, mode: ImbalanceMode) -> None:
    parts = _parts(items=60)
    fitted = fit_parts(name, SHORT, parts, imbalance=mode)
    assert np.isfinite(fitted.scores(parts.test.x)).all()


@pytest.mark.parametrize("name", OF_BAGS)
def test_constant_columns_are_no_trouble_to_bag_methods(name: str) -> None:
    bags, _ = haystack(60, 0)
    values = np.concatenate(
        [bags.values_TD, np.full((bags.values_TD.shape[0], 2), 5.0, np.float32)], axis=1
    )
    x = bags_of(values, bags.offsets_I1)
    fitted = fit(name, SHORT, x, bags.y_IL, x, bags.y_IL)
    assert np.isfinite(fitted.scores(x)).all()


def test_bags_and_rows_are_not_taken_for_each_other() -> None:
    parts = _parts(items=60)
    rows = parts.as_rows()
    with pytest.raises(BadSteeringInput, match="reads single rows; .*pooling: attention"):
        fit_parts("logistic_l2", {}, parts)
    with pytest.raises(BadSteeringInput, match="reads texts as bags of tokens"):
        fit_parts("multiple_instance_max", {}, rows)
    fitted = fit_parts("multiple_instance_max", SHORT, parts)
    with pytest.raises(BadSteeringInput, match="bags of tokens"):
        fitted.scores(rows.test.x)
    with pytest.raises(BadSteeringInput, match="reads no bags"):
        fit_parts("mass_mean", {}, rows).token_scores(parts.test.x)


def test_the_largest_value_of_each_bag_is_the_same_for_sparse_tokens() -> None:
    values = np.array([[0, 3], [2, 0], [0, 0], [0, 1], [5, 4]], np.float32)
    offsets = [0, 2, 3, 5]
    expected = [[2, 3], [0, 0], [5, 4]]
    assert bags_of(values, offsets).largest().tolist() == expected
    assert bags_of(csr_matrix(values), offsets).largest().toarray().tolist() == expected
    assert bags_of(csr_matrix((5, 2)), offsets).largest().toarray().tolist() == [[0, 0]] * 3


def test_bags_are_read_in_batches_of_few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.probes.matrices.BATCH_VALUES", 12)
    dense = bags_of(np.ones((9, 3), np.float32), [0, 2, 4, 5, 9])
    assert [batch.tolist() for batch in dense.batches()] == [[0, 1], [2], [3]]
    sparse = bags_of(csr_matrix(np.eye(9, 300, dtype=np.float32)), [0, 2, 4, 5, 9])
    assert [batch.tolist() for batch in sparse.batches([3, 0, 1, 2])] == [[3, 0, 1, 2]]


@pytest.mark.parametrize("share", [1 / 30, "estimate"])
def test_pu_with_certain_negatives_finds_needles(share: float | str) -> None:
    train, validation = (haystack(240, seed)[0] for seed in (0, 1))
    test, needle = haystack(200, 2)
    parameters = {"known": "negative", "positive_share": share, "weight_decay": (0.01,)}
    fitted = fit(
        "positive_unlabelled", parameters,
        train.values_TD, train.y_IL[train.item_of_token_T],
        validation.values_TD, validation.y_IL[validation.item_of_token_T],
    )  # fmt: skip
    token_TL = fitted.scores(test.values_TD)
    assert auroc(token_TL[:, 0], needle) > 0.95
    text_L = pool_scores(token_TL, test.offsets_I1)[:, 0]
    assert auroc(text_L, test.y_IL[:, 0]) > 0.9
    assert 0 < float(fitted.chosen[0]["positive_share"]) < 0.15


@pytest.mark.parametrize("declared", [True, False])
def test_pu_with_certain_positives_calls_those_that_were_missed(declared: bool) -> None:
    def missed(seed: int) -> tuple[Any, Any, Any]:
        x, y = directions(2000, width=10, gap=3.0, seed=seed)
        labels = flip_labels(y[:, None], 0.7, "positive_to_negative", items=range(2000))
        return x, y, labels[:, 0]

    (x, y, given), (x_val, _, given_val), (x_test, y_test, _) = (missed(seed) for seed in range(3))
    share = float((y & ~given).sum() / (~given).sum())
    parameters = {
        "known": "positive", "positive_share": share if declared else "estimate",
        "weight_decay": (0.01,),
    }  # fmt: skip
    pu = fit("positive_unlabelled", parameters, x, given, x_val, given_val)
    naive = fit("logistic_l2", {}, x, given, x_val, given_val)
    balanced = []
    for fitted in (naive, pu):
        score = fitted.scores(x_test)[:, 0]
        balanced.append(((score > 0)[y_test].mean() + (score <= 0)[~y_test].mean()) / 2)
    assert balanced[1] > balanced[0] + 0.1
    assert float(pu.chosen[0]["positive_share"]) == pytest.approx(share, abs=0.12)


def test_which_labels_are_certain_has_to_be_said() -> None:
    x, y = directions(rows=100)
    with pytest.raises(BadSteeringInput, match="known"):
        fit("positive_unlabelled", {"positive_share": 0.3}, x, y, x, y)
