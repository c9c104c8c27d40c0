"""The k-sparse score: the numbers of sae-probes, a planted latent, items held out whole."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from steering.errors import BadSteeringInput
from steering.probes.sae_score import k_sparse_score
from tests.steering.probes.planted_rows import latents

UNUSED_BY_ARRAYS = {
    "utils_data": (
        "get_class_imbalance", "get_corrupt_frac", "get_dataset_sizes",
        "get_numbered_binary_tags", "get_training_sizes",
    ),
    "generate_model_activations": ("ensure_dataset_activations",),
    "generate_sae_activations": ("generate_sae_activations",),
}  # fmt: skip
"""Modules of the package that read its data sets when they are imported."""


@pytest.fixture
def sae_probes(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Its modules for SAE probes and for training, without xgboost and without its data sets."""
    spec = importlib.util.find_spec("sae_probes")
    assert spec is not None and spec.submodule_search_locations is not None
    for name in [name for name in sys.modules if name.partition(".")[0] == "sae_probes"]:
        monkeypatch.delitem(sys.modules, name)
    package = ModuleType("sae_probes")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "sae_probes", package)
    monkeypatch.setitem(sys.modules, "xgboost", ModuleType("xgboost"))
    for name, functions in UNUSED_BY_ARRAYS.items():
        module = ModuleType(f"sae_probes.{name}")
        for function in functions:
            setattr(module, function, dict)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    with warnings.catch_warnings():
        evals = importlib.import_module("sae_probes.run_sae_evals")
        training = importlib.import_module("sae_probes.utils_training")
    for name in ("run_sae_evals", "utils_training", "constants", "utils_tmp", "utils_hooks"):
        monkeypatch.delitem(sys.modules, f"sae_probes.{name}", raising=False)
    return evals, training


def _firing_latents(seed: int, rows: int = 500, width: int = 800) -> tuple[Any, Any]:
    """Latents of very different rates and scales, some of which fire more for positives."""
    random = np.random.default_rng(seed)
    y = random.random(rows) < 0.4
    rate = np.exp(random.uniform(np.log(0.005), np.log(0.3), width))
    scale = np.exp(random.normal(0, 1.5, width))
    extra = np.where(random.random(width) < 0.05, random.uniform(0, 0.25, width), 0)
    fires = random.random((rows, width)) < rate + extra * y[:, None]
    return (fires * scale * random.gamma(2, 0.5, (rows, width))).astype(np.float32), y


@pytest.mark.parametrize(("rows", "ks"), [(360, (1, 16, 128)), (110, (1, 8))])
def test_it_is_the_score_of_sae_probes(
    sae_probes: tuple[Any, Any], rows: int, ks: tuple[int, ...]
) -> None:
    """Over 128 rows with rows held out, below with folds."""
    evals, training = sae_probes
    x, y = _firing_latents(rows)
    ours = k_sparse_score(csr_matrix(x[:rows]), y[:rows], csr_matrix(x[rows:]), y[rows:], ks)
    order = evals.get_sorted_indices(
        torch.tensor(x[:rows]), torch.tensor(y[:rows].astype(int)), evals.mean_act_normalization
    ).numpy()
    for k in ks:
        chosen = order[:k]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = training.find_best_reg(
                x[:rows][:, chosen], y[:rows].astype(int), x[rows:][:, chosen],
                y[rows:].astype(int), penalty="l2", seed=42,
            )  # fmt: skip
        score = ours.by_k[k]
        assert set(score.latents) == set(chosen.tolist())
        assert score.test_auroc == pytest.approx(theirs.metrics.test_auc, abs=0.01)
        assert score.validation_auroc == pytest.approx(theirs.metrics.val_auc, abs=0.01)


def test_by_l1_it_is_the_score_of_sae_probes_too(sae_probes: tuple[Any, Any]) -> None:
    _, training = sae_probes
    x, y = _firing_latents(1, width=40)
    ours = k_sparse_score(x[:300], y[:300], x[300:], y[300:], (8,), penalty="l1").by_k[8]
    chosen = list(ours.latents)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = training.find_best_reg(
            x[:300][:, chosen], y[:300].astype(int), x[300:][:, chosen], y[300:].astype(int),
            penalty="l1", seed=42,
        )  # fmt: skip
    assert ours.test_auroc == pytest.approx(theirs.metrics.test_auc, abs=0.01)


def test_a_latent_that_is_the_label_scores_one_alone() -> None:
    x, y = latents()
    scores = k_sparse_score(x[:400], y[:400], x[400:], y[400:], (1, 4))
    assert scores.by_k[1].latents == (7,)
    assert scores.by_k[4].latents[0] == 7
    assert scores.value(1) > 0.99
    assert scores.metrics()["k_sparse_auroc.1"] == scores.value(1)
    assert scores.by_k[1].interval.low > 0.98
    dense = k_sparse_score(x[:400].toarray(), y[:400], x[400:].toarray(), y[400:], (1, 4))
    assert dense.metrics() == pytest.approx(scores.metrics(), abs=1e-6)


def test_rows_sorted_by_label_are_no_trouble() -> None:
    x, y = latents()
    order = np.argsort(y[:400], kind="stable")
    scores = k_sparse_score(x[order], y[order], x[400:], y[400:], (1,))
    assert scores.value(1) > 0.99
    assert scores.by_k[1].validation_auroc > 0.99


@pytest.mark.parametrize("rows", [4, 8, 40])
def test_few_rows_are_scored_too(rows: int) -> None:
    x, y = latents()
    picked = np.concatenate([np.flatnonzero(y)[: rows // 2], np.flatnonzero(~y)[: rows // 2]])
    score = k_sparse_score(x[picked], y[picked], x[400:], y[400:], (1,), resamples=0).value(1)
    assert 0 <= score <= 1


def test_rows_held_out_are_of_other_items() -> None:
    """A label that hangs on items, latents that name them: only whole items held out show it."""
    random = np.random.default_rng(0)
    items = np.repeat(np.arange(60), 5)
    y_item = random.random(75) < 0.5
    y = y_item[items]
    x = np.abs(random.normal(size=(300, 75))).astype(np.float32) * 0.01
    x[np.arange(300), items] += 1.0
    mixed = random.permutation(300)
    test_items = np.repeat(np.arange(60, 75), 5)
    x_test = np.abs(random.normal(size=(75, 75))).astype(np.float32) * 0.01
    x_test[np.arange(75), test_items] += 1.0
    leaky, honest = (
        k_sparse_score(
            x[mixed], y[mixed], x_test, y_item[test_items], (60,),
            items_train=own, items_test=test_items, resamples=0,
        ).by_k[60].validation_auroc
        for own in (None, items[mixed])
    )  # fmt: skip
    assert leaky > 0.9
    assert honest < 0.75


def test_what_cannot_be_scored_is_said(caplog: pytest.LogCaptureFixture) -> None:
    x, y = latents(width=20)
    with caplog.at_level(logging.WARNING):
        scores = k_sparse_score(x[:400], y[:400], x[400:], y[400:], (1, 512), resamples=0)
    assert "k=[512] not in 1..20" in caplog.text
    with pytest.raises(BadSteeringInput, match="k=512 was not measured; measured: 1"):
        scores.value(512)
    with pytest.raises(BadSteeringInput, match="from 1 to the 20 latents"):
        k_sparse_score(x[:400], y[:400], x[400:], y[400:], (0,))
    with pytest.raises(BadSteeringInput, match="y_test has one class only"):
        k_sparse_score(x[:400], y[:400], x[400:], np.zeros(200, bool), (1,))
