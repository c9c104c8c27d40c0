"""A planted teacher is recovered, shuffled labels are not, a stopped training goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steering.styles.catalogue import Attribute
from steering.styles.encoders import EncoderSpec
from steering.styles.errors import BadStyleData
from steering.styles.scorers import ScorerSpec, score_attributes
from steering.styles.scorers.countable import COUNTABLE, countable_scores
from steering.styles.scorers.learning_curve import CurvePoint, write_learning_curve
from steering.styles.scorers.quality import quality, r2_by_attribute
from steering.styles.scorers.regression import RegressionRecipe, RegressorTraining
from steering.styles.scorers.regressor import RegressorModel, load_regressor, save_regressor

N, D, A = 600, 12, 5
ITEMS = [f"q{row // 4}" for row in range(N)]
ATTRIBUTES = [Attribute(id=f"a{n}", text=f"The author does {n}.") for n in range(A)]


def planted(seed: int = 0, *, is_probability: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and targets that are linear in them (as logits, where they are probabilities)."""
    random = np.random.default_rng(seed)
    x_ND = random.normal(3.0, 2.0, (N, D))
    y_NA = (x_ND - 3.0) @ random.normal(size=(D, A)) * [0.01, 1, 10, 1, 1] + [0, 5, -40, 0, 1]
    if is_probability:
        y_NA = 1 / (1 + np.exp(-0.5 * (y_NA - y_NA.mean(0)) / y_NA.std(0)))
    return torch.tensor(x_ND, dtype=torch.float32), torch.tensor(y_NA, dtype=torch.float32)


def trained(x_ND: torch.Tensor, y_NA: torch.Tensor, steps: int, **recipe: Any) -> RegressorTraining:
    given = {"hidden": (), "lr": 2e-2, "weight_decay": 0.0, **recipe}
    training = RegressorTraining(RegressionRecipe(**given), x_ND, y_NA, ITEMS[: len(x_ND)])
    for _ in range(steps):
        training.step()
    return training


def r2(training: RegressorTraining, x_ND: torch.Tensor, y_NA: torch.Tensor) -> list[float]:
    return [float(one) for one in r2_by_attribute(training.predict(x_ND).numpy(), y_NA.numpy())]


@pytest.mark.parametrize("loss", ["mse", "huber", "bce"])
def test_a_linear_teacher_is_recovered_whatever_the_scale_of_its_outputs(loss: Any) -> None:
    x_ND, y_NA = planted(is_probability=loss == "bce")
    training = trained(x_ND[:400], y_NA[:400], 400, loss=loss)
    assert min(r2(training, x_ND[400:], y_NA[400:])) > 0.95


def test_shuffled_scores_are_not_predicted() -> None:
    x_ND, y_NA = planted()
    shuffled_NA = y_NA[torch.randperm(N, generator=torch.Generator().manual_seed(1))]
    training = trained(x_ND[:400], shuffled_NA[:400], 200)
    assert max(r2(training, x_ND[400:], shuffled_NA[400:])) <= 0.02
    assert np.mean(r2(training, x_ND[400:], shuffled_NA[400:])) <= 0


def test_more_rows_predict_better_and_smaller_numbers_are_among_larger_ones() -> None:
    x_ND, y_NA = planted()
    y_NA = y_NA + torch.randn(y_NA.shape, generator=torch.Generator().manual_seed(0)) * y_NA.std(0)
    found = [
        np.mean(r2(trained(x_ND[:500], y_NA[:500], 300, train_rows=rows), x_ND[500:], y_NA[500:]))
        for rows in (20, 80, 500)
    ]
    assert found == sorted(found)
    few, more = (trained(x_ND, y_NA, 0, train_rows=rows) for rows in (20, 80))
    assert len(few.rows) == 20
    assert set(few.rows.tolist()) < set(more.rows.tolist())
    other_seed = trained(x_ND, y_NA, 0, train_rows=20, seed=1)
    assert set(other_seed.rows.tolist()) != set(few.rows.tolist())


def test_what_cannot_be_trained_on_is_said() -> None:
    x_ND, y_NA = planted()
    with pytest.raises(BadStyleData, match="loss=bce needs targets within 0 and 1; they go from"):
        trained(x_ND, y_NA, 0, loss="bce")
    with pytest.raises(BadStyleData, match="train_rows=601 is not within 2 and the 600 rows"):
        trained(x_ND, y_NA, 0, train_rows=601)


def test_an_attribute_that_never_varies_has_no_r2_and_breaks_nothing() -> None:
    x_ND, y_NA = planted()
    y_NA[:, 2] = 0.3
    training = trained(x_ND[:400], y_NA[:400], 100)
    found = r2(training, x_ND[400:], y_NA[400:])
    assert np.isnan(found[2]) and not np.isnan(found[1])
    assert torch.isfinite(training.predict(x_ND)).all()


def test_a_training_that_was_saved_goes_on_bit_for_bit(tmp_path: Path) -> None:
    x_ND, y_NA = planted()
    recipe = {"hidden": (8,), "dropout": 0.3, "train_rows": 100, "seed": 3}
    whole = trained(x_ND, y_NA, 30, **recipe)
    first = trained(x_ND, y_NA, 11, **recipe)
    first.save(tmp_path)
    second = trained(x_ND, y_NA, 0, **recipe)
    second.load(tmp_path)
    for _ in range(19):
        second.step()
    assert torch.equal(second.predict(x_ND), whole.predict(x_ND))


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_what_was_saved_predicts_what_was_trained(loss: Any, tmp_path: Path) -> None:
    x_ND, y_NA = planted(is_probability=True)
    training = trained(x_ND, y_NA, 50, loss=loss, hidden=(8,))
    scaling = training.scaling
    model = RegressorModel(
        training.head,
        EncoderSpec(builtin="minilm"),
        tuple(ATTRIBUTES),
        training.recipe.is_probability,
        scaling.mean_D,
        scaling.deviation_D,
        scaling.target_mean_A,
        scaling.target_deviation_A,
        {"catalogue_sha256": "0" * 64},
    )
    save_regressor(tmp_path, model)
    again = load_regressor(tmp_path)
    torch.testing.assert_close(again.predict(x_ND), training.predict(x_ND))
    assert again.config["catalogue_sha256"] == "0" * 64
    with pytest.raises(BadStyleData, match=r"shape \[rows, 12\]"):
        again.predict(x_ND[:, :3])


def test_a_folder_without_a_regressor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadStyleData, match="holds no style scorer"):
        score_attributes(ScorerSpec(regressor=str(tmp_path)), ["a"], ["b"], tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadStyleData, match="not that of a style_scorer"):
        load_regressor(tmp_path)


def test_yes_or_no_targets_have_an_auroc_and_others_have_none() -> None:
    random = np.random.default_rng(0)
    yes_N = random.random(200) < 0.3
    target_NA = np.stack([yes_N.astype(float), random.random(200)], axis=1)
    predicted_NA = np.stack([yes_N + 0.01 * random.random(200), random.random(200)], axis=1)
    first, second = quality(predicted_NA, target_NA, ATTRIBUTES[:2])
    assert first.auroc == 1.0
    assert np.isnan(second.auroc)
    assert second.to_json()["auroc"] is None
    assert second.r2 < 0


def test_the_learning_curve_is_drawn_where_there_is_one(tmp_path: Path) -> None:
    points = [CurvePoint(n, loss, n / 1000) for n in (10, 100) for loss in ("mse", "bce")]
    picture, table = write_learning_curve(points, tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert table.read_text().splitlines()[1] == "bce,10,1,0.01,0.01"
    assert not write_learning_curve(points[:2], tmp_path)


def test_countable_style_is_counted() -> None:
    texts = ["You may not (never) do it.", "Extraordinarily complicated constructions abound."]
    scores = countable_scores(texts)
    ids = [one.id for one in COUNTABLE]
    assert scores.shape == (2, len(COUNTABLE))
    assert scores.min() >= 0 and scores.max() <= 1
    for name in ("reader", "hedges", "negation", "parentheses"):
        assert scores[0, ids.index(name)] > scores[1, ids.index(name)]
    assert scores[1, ids.index("long_words")] > scores[0, ids.index("long_words")]
