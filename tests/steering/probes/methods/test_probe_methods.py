"""Every probe method: what all of them promise, and what scikit-learn says of the same rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steering.errors import BadSteeringInput
from steering.probes.imbalance import IMBALANCE_MODES, ImbalanceMode
from steering.probes.method import FittedProbe
from steering.probes.methods import METHODS, fit, parse_method
from steering.probes.parts import fit_parts, macro_auroc
from steering.probes.ranking_metrics import auroc
from tests.steering.probes.planted_rows import directions, latents, parted

FAST: dict[str, dict[str, Any]] = {
    "k_sparse": {"k": (1, 8), "c": (0.1, 10.0)},
    "mlp": {"hidden": (8,), "alpha": (0.1, 10.0), "epochs": 30, "learning_rate": 1e-2},
    "pca_logistic": {"components": (4, 16)},
    "positive_unlabelled": {"known": "positive", "positive_share": 0.1, "epochs": 30},
}
OF_ROWS = sorted(name for name, method in METHODS.items() if not method.reads_bags)
WEIGHED = [name for name in OF_ROWS if METHODS[name].weighs_rows]


def _fitted(name: str, x: Any, y: Any, **more: Any) -> FittedProbe:
    return fit_parts(name, FAST.get(name, {}), parted(x, y), **more)


@pytest.mark.parametrize("name", OF_ROWS)
@pytest.mark.parametrize("sparse", [False, True])
def test_every_method_finds_a_planted_direction(name: str, sparse: bool) -> None:
    x, y = directions(gap=4.0)
    x = csr_matrix(x - 3.0) if sparse else x
    fitted = _fitted(name, x, y)
    parts = parted(x, y)
    score_N1 = fitted.scores(parts.test.x)
    assert score_N1.shape == (len(parts.test.items), 1)
    assert auroc(score_N1[:, 0], parts.test.y_NL[:, 0]) > (0.8 if name == "k_sparse" else 0.9)
    assert ((score_N1 >= fitted.thresholds_L) == parts.test.y_NL).mean() > 0.7
    assert fitted.labels[0].validation_score == max(score for _, score in fitted.labels[0].tried)


@pytest.mark.parametrize("name", OF_ROWS)
def test_the_test_rows_change_nothing_and_a_saved_probe_scores_the_same(
    name: str, tmp_path: Path
) -> None:
    x, y = directions(rows=300)
    classes = np.stack([y, ~y, np.arange(300) % 3 == 0], axis=1)
    fitted = _fitted(name, x, classes, seed=3)
    again = fit(
        name, FAST.get(name, {}), x[:150], classes[:150], x[150:210], classes[150:210], seed=3
    )
    assert np.array_equal(fitted.scores(x), again.scores(x))
    fitted.save(tmp_path)
    loaded = FittedProbe.load(tmp_path)
    assert np.array_equal(loaded.scores(x), fitted.scores(x))
    assert loaded.chosen == fitted.chosen
    assert np.array_equal(loaded.thresholds_L, fitted.thresholds_L)
    assert fitted.scores(x).shape == (300, 3)


@pytest.mark.parametrize("name", WEIGHED)
@pytest.mark.parametrize("mode", IMBALANCE_MODES)
def test_every_method_takes_every_imbalance_mode(name: str, mode: ImbalanceMode) -> None:
    x, y = directions(rows=240, width=6, gap=4.0)
    y = y & (np.arange(240) % 3 == 0) | (np.arange(240) % 60 == 0)
    fitted = _fitted(name, x, y, imbalance=mode)
    assert np.isfinite(fitted.scores(x)).all()


@pytest.mark.parametrize("name", OF_ROWS)
def test_constant_and_duplicated_columns_are_no_trouble(name: str) -> None:
    x, y = directions(rows=300, width=5, gap=4.0)
    x = np.concatenate([x, np.full((300, 2), 5.0, np.float32), x[:, :1]], axis=1)
    assert np.isfinite(_fitted(name, x, y).scores(x)).all()


def test_l2_is_the_regression_of_scikit_learn() -> None:
    x, y = directions()
    for c in (0.01, 1.0):
        fitted = fit("logistic_l2", {"c": (c,)}, x[:300], y[:300], x[300:420], y[300:420])
        rival = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-6))
        rival.fit(x[:300].astype(np.float64), y[:300])
        assert np.allclose(fitted.scores(x)[:, 0], rival.decision_function(x), atol=2e-2)


def test_pos_weight_is_balanced_class_weight_of_scikit_learn() -> None:
    x, y = directions()
    fitted = fit(
        "logistic_l2", {"c": (1.0,)}, x[:300], y[:300], x[300:420], y[300:420],
        imbalance="pos_weight",
    )  # fmt: skip
    rival = make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", tol=1e-6)
    )
    rival.fit(x[:300].astype(np.float64), y[:300])
    assert np.allclose(fitted.scores(x)[:, 0], rival.decision_function(x), atol=2e-2)


def test_neighbours_rank_as_scikit_learns() -> None:
    x, y = directions()
    fitted = fit("knn", {"k": (15,)}, x[:300], y[:300], x[300:420], y[300:420])
    rival = make_pipeline(StandardScaler(), KNeighborsClassifier(15)).fit(x[:300], y[:300])
    expected = auroc(rival.predict_proba(x[420:])[:, 1], y[420:])
    assert auroc(fitted.scores(x[420:])[:, 0], y[420:]) == pytest.approx(expected, abs=1e-3)


def test_components_rank_as_scikit_learns() -> None:
    x, y = directions(width=12)
    fitted = fit(
        "pca_logistic", {"components": (3,), "c": (1e4,)}, x[:300], y[:300], x[300:420], y[300:420]
    )
    rival = make_pipeline(StandardScaler(), PCA(3), LogisticRegression(C=1e4, tol=1e-8))
    rival.fit(x[:300].astype(np.float64), y[:300])
    expected = auroc(rival.decision_function(x[420:]), y[420:])
    assert auroc(fitted.scores(x[420:])[:, 0], y[420:]) == pytest.approx(expected, abs=0.005)


def test_mass_mean_is_the_difference_of_means_and_whitening_undoes_a_stretch() -> None:
    random = np.random.default_rng(0)
    y = random.random(900) < 0.5
    mix = np.diag([8.0, 1.0, 1.0]) @ np.linalg.qr(random.normal(size=(3, 3)))[0]
    x = (random.normal(size=(900, 3)) @ mix) + 2.0 * y[:, None] * np.array([0.4, 0.6, -0.2])
    plain = fit("mass_mean", {"iid": (False,)}, x[:400], y[:400], x[400:600], y[400:600])
    difference = x[:400][y[:400]].mean(axis=0) - x[:400][~y[:400]].mean(axis=0)
    assert np.allclose(plain.weights()[0], difference)
    whitened = fit(
        "mass_mean", {"iid": (True,), "shrinkage": (1e-6,)}, x[:400], y[:400], x[400:600],
        y[400:600],
    )  # fmt: skip
    within = x[:400] - np.where(
        y[:400, None], x[:400][y[:400]].mean(axis=0), x[:400][~y[:400]].mean(axis=0)
    )
    expected = np.linalg.solve(within.T @ within / 400, difference)
    assert np.allclose(whitened.weights()[0], expected, rtol=1e-3)
    better = auroc(whitened.scores(x[600:])[:, 0], y[600:])
    assert better > auroc(plain.scores(x[600:])[:, 0], y[600:]) + 0.05


def test_whitening_sparse_rows_without_their_covariance_is_exact() -> None:
    x = random_array((200, 40), density=0.3, format="csr", rng=np.random.default_rng(0))
    y = np.random.default_rng(1).random(200) < 0.5
    setting = {"iid": (True,), "shrinkage": (0.1,)}
    dense = fit("mass_mean", setting, x.toarray(), y, x.toarray(), y)
    sparse = fit("mass_mean", setting, x, y, x, y)
    assert np.allclose(dense.weights(), sparse.weights(), rtol=1e-4, atol=1e-6)


def test_a_latent_that_is_the_label_is_found_alone_and_first() -> None:
    x, y = latents()
    parts = parted(x, y)
    fitted = fit_parts("k_sparse", {"k": (1,)}, parts)
    assert fitted.columns(0).tolist() == [7]
    assert macro_auroc(fitted.scores(parts.test.x), parts.test.y_NL) > 0.99
    with_all = fit_parts("k_sparse", {}, parts)
    assert with_all.chosen[0]["k"] == 1
    assert fit_parts("logistic_l1", {}, parts).columns(0)[0] == 7


def test_without_normalising_a_loud_latent_hides_a_faint_one() -> None:
    x, y = latents()
    loud = x.toarray()
    loud[:, 9] = np.random.default_rng(0).random(600) * 500 * (np.random.random(600) < 0.3)
    parts = parted(csr_matrix(loud), y)
    plain = fit_parts("k_sparse", {"k": (1,), "normalize": False}, parts)
    assert plain.columns(0).tolist() != [7]
    assert fit_parts("k_sparse", {"k": (1,)}, parts).columns(0).tolist() == [7]


def test_only_training_rows_choose_the_latents() -> None:
    x, y = latents()
    wrong = x.toarray()
    wrong[300:, 11] = 100.0 * y[300:]
    fitted = fit_parts("k_sparse", {"k": (1,)}, parted(csr_matrix(wrong), y))
    assert fitted.columns(0).tolist() == [7]


def test_settings_come_from_validation_rows() -> None:
    """With few rows and many columns of noise a strong penalty wins there, and is chosen."""
    random = np.random.default_rng(0)
    y = random.random(400) < 0.5
    x = random.normal(size=(400, 300))
    x[:, 0] += 1.5 * y
    fitted = fit("logistic_l1", {"c": (0.1, 100.0)}, x[:100], y[:100], x[100:250], y[100:250])
    assert fitted.chosen[0]["c"] == 0.1
    assert dict(fitted.labels[0].tried[0][0])["c"] == 0.1


def test_a_search_that_does_not_converge_says_so_and_goes_on() -> None:
    x, y = directions()
    fitted = fit(
        "logistic_l2", {"c": (1e6,), "max_iterations": 2}, x[:300], y[:300], x[300:420], y[300:420]
    )
    assert fitted.chosen[0]["converged"] is False


def test_classes_are_compared_by_calibrated_log_odds() -> None:
    """One class with a much stronger penalty is never called by raw scores."""
    random = np.random.default_rng(0)
    class_N = random.integers(0, 3, 900)
    one_hot = np.arange(3) == class_N[:, None]
    x = random.normal(size=(900, 6))
    x[:, :3] += 3.0 * one_hot
    parts = parted(x, one_hot)
    fitted = fit_parts("logistic_l2", {"c": (1e-4,)}, parts)
    strong = fit_parts("logistic_l2", {"c": (10.0,)}, parts)
    mixed = FittedProbe("logistic_l2", 6, (fitted.labels[0], *strong.labels[1:]), "auroc")
    truth = parts.test.y_NL.argmax(axis=1)
    raw = (mixed.scores(parts.test.x).argmax(axis=1) == truth).mean()
    calibrated = mixed.calibrated(parts.test.x)
    assert (calibrated.argmax(axis=1) == truth).mean() > max(raw, 0.85)
    share = 1 / (1 + np.exp(-calibrated))
    assert np.allclose(share.mean(axis=0), parts.test.y_NL.mean(axis=0), atol=0.06)
    assert macro_auroc(calibrated, parts.test.y_NL) == pytest.approx(
        macro_auroc(mixed.scores(parts.test.x), parts.test.y_NL)
    )


def test_a_network_over_many_columns_reads_their_components() -> None:
    x, y = directions(width=60, gap=4.0)
    parts = parted(x, y)
    setting = {"hidden": (8,), "alpha": (0.1,), "max_columns": 20, "learning_rate": 1e-2}
    fitted = fit_parts("mlp", setting, parts)
    assert macro_auroc(fitted.scores(parts.test.x), parts.test.y_NL) > 0.9


def test_what_cannot_be_used_is_refused_with_the_way_out() -> None:
    x, y = directions(rows=100)
    with pytest.raises(BadSteeringInput, match="Did you mean 'k_sparse'"):
        parse_method("k-sparse")
    with pytest.raises(BadSteeringInput, match="parameters: .*max_iterations"):
        parse_method("logistic_l2", {"cs": [1]})
    with pytest.raises(BadSteeringInput, match="rare: only one class among the 50 training rows"):
        fit("knn", {}, x[:50], np.zeros(50, bool), x[50:], y[50:], label_names=["rare"])
    with pytest.raises(BadSteeringInput, match="not finite"):
        fit("knn", {}, np.full((50, 2), np.nan), y[:50], x[50:, :2], y[50:])
    with pytest.raises(BadSteeringInput, match="24 columns, x_validation 3"):
        fit("knn", {}, x[:50], y[:50], x[50:, :3], y[50:])
    with pytest.raises(BadSteeringInput, match="other values than 0 and 1"):
        fit("knn", {}, x[:50], np.arange(50), x[50:], y[50:])
    fitted = fit("knn", {"k": (3,)}, x[:50], y[:50], x[50:], y[50:])
    with pytest.raises(BadSteeringInput, match="not linear"):
        fitted.weights()
    with pytest.raises(BadSteeringInput, match="reads 24 columns"):
        fitted.scores(x[:, :3])


@pytest.mark.slow
def test_wide_sparse_latents_are_never_made_dense() -> None:
    """20,000 rows of 24,576 latents would be 3.9 GB; a process with 2 GB fits its probes."""
    program = """
import re, numpy as np
from scipy.sparse import csr_matrix
from steering.probes.methods import fit
random = np.random.default_rng(0)
rows, width, active = 20_000, 24_576, 16
indices = random.integers(0, width, rows * active).astype(np.int32)
values = random.random(rows * active).astype(np.float32)
x = csr_matrix((values, indices, np.arange(0, rows * active + 1, active)), (rows, width))
y = random.random(rows) < 0.3
half = rows // 2
for name, parameters in (
    ("k_sparse", {"k": (1, 64), "c": (1.0,)}), ("mass_mean", {}),
    ("logistic_l1", {"c": (0.01,)}),
    ("logistic_l2", {"c": (0.01,), "max_iterations": 20}), ("knn", {"k": (5,)}),
):
    fit(name, parameters, x[:half], y[:half], x[half : half + 2000], y[half : half + 2000])
# Not ru_maxrss: it starts from what the process that started this one had.
status = open("/proc/self/status").read()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 2**20)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=Path(__file__).parents[4],
    )
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 1.5


def test_importing_the_methods_loads_neither_torch_nor_scikit_learn() -> None:
    program = (
        "import sys, steering.probes.methods, steering.probes.controls, steering.probes.evaluation,"
        "steering.probes.sae_score, steering.probes.noise.token_bags\n"
        "print([name for name in ('torch', 'sklearn', 'scipy') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[4],
    )
    assert answer.stdout.strip() == "[]", answer.stderr
