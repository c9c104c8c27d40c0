"""Latents: exact AUROC with ties, a planted latent at rank 1, its family."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from steering.errors import BadSteeringInput
from steering.probes.latents import auroc
from steering.probes.latents.auroc import latent_auroc
from steering.probes.latents.parents import related_latents
from steering.probes.latents.ranking import rank_latents, ranking_table


def latents(
    num_rows: int, num_latents: int, *, rate: float = 0.3, levels: int = 5, seed: int = 0
) -> np.ndarray:
    """Many ties: values are small whole numbers."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, levels, (num_rows, num_latents)).astype(np.float32)
    return values * (rng.random((num_rows, num_latents)) < rate)


def by_scikit_learn(x_NF: np.ndarray, y_NL: np.ndarray) -> np.ndarray:
    return np.array([[roc_auc_score(y_N, x_N) for y_N in y_NL.T] for x_N in x_NF.T])


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.floats(0.0, 1.0),
    negative=st.booleans(),
    form=st.sampled_from(["csr", "csc", "numpy"]),
)
def test_auroc_is_scikit_learn_s_with_all_its_ties(
    seed: int, rate: float, negative: bool, form: str
) -> None:
    x_NF = latents(60, 6, rate=rate, seed=seed) - (2.0 * negative)
    y_NL = np.random.default_rng(seed).random((60, 2)) < [0.5, 0.2]
    y_NL[0], y_NL[1] = True, False
    given_x = {
        "csr": scipy.sparse.csr_matrix(x_NF),
        "csc": scipy.sparse.csc_matrix(x_NF),
        "numpy": x_NF,
    }[form]
    np.testing.assert_allclose(latent_auroc(given_x, y_NL), by_scikit_learn(x_NF, y_NL), atol=1e-12)


def test_auroc_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NF, y_N = latents(200, 40), np.arange(200) % 3 == 0
    whole = latent_auroc(scipy.sparse.csr_matrix(x_NF), y_N)
    monkeypatch.setattr(auroc, "BLOCK_ENTRIES", 70)
    np.testing.assert_array_equal(latent_auroc(scipy.sparse.csr_matrix(x_NF), y_N), whole)


def test_zeros_that_are_written_out_are_zeros_and_stay_the_caller_s() -> None:
    x_NF, y_N = latents(50, 6), np.arange(50) % 2 == 0
    csc = scipy.sparse.csc_matrix(x_NF)
    csc.data[:5] = 0.0
    before = csc.data.copy()
    np.testing.assert_allclose(
        latent_auroc(csc, y_N), by_scikit_learn(csc.toarray(), y_N[:, None]), atol=1e-12
    )
    np.testing.assert_array_equal(csc.data, before)


def test_one_class_has_no_auroc() -> None:
    with pytest.raises(BadSteeringInput, match="the same in all 50 rows"):
        latent_auroc(latents(50, 3), np.ones(50, bool))


@pytest.mark.parametrize("by", ["auroc", "mean_difference", "k_sparse"])
def test_the_planted_latent_is_first(by: str) -> None:
    rng = np.random.default_rng(0)
    y_N = rng.random(600) < 0.3
    x_NF = latents(600, 50, rate=0.1)
    x_NF[:, 7] = np.where(y_N, rng.uniform(1, 2, 600), 0)
    x = scipy.sparse.csr_matrix(x_NF)
    ranks = rank_latents(x[:400], y_N[:400], by=by, top=5, held_out=(x[400:], y_N[400:]))  # type: ignore[arg-type]
    best = ranks[0]
    assert best.latent == 7
    assert best.auroc == pytest.approx(1.0)
    assert best.auroc_held_out == pytest.approx(1.0)
    assert best.firing_rate == pytest.approx(y_N[:400].mean())
    assert (best.firing_rate_positive, best.firing_rate_negative) == (1.0, 0.0)
    assert best.mean_when_firing == pytest.approx(x_NF[:400, 7][y_N[:400]].mean(), rel=1e-5)
    assert best.mean_difference == pytest.approx(best.mean_when_firing, rel=1e-5)
    assert best.k_sparse_weight is not None
    assert best.k_sparse_weight > 0
    assert ranks[1].auroc_held_out is not None
    assert abs(ranks[1].auroc_held_out - 0.5) < 0.2
    assert str(best.latent) in ranking_table(ranks)


def test_a_latent_that_falls_silent_for_the_label_is_found_and_rare_ones_can_be_left_out() -> None:
    y_N = np.arange(200) % 2 == 0
    x_NF = latents(200, 10, rate=0.3)
    x_NF[:, 3] = ~y_N
    x_NF[:, 4] = 0
    x_NF[0, 4] = 1
    ranks = rank_latents(scipy.sparse.csr_matrix(x_NF), y_N, min_firing_rate=0.05)
    assert ranks[0].latent == 3
    assert ranks[0].auroc == 0.0
    assert 4 not in [one.latent for one in ranks]


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(BadSteeringInput, match="known: auroc"):
        rank_latents(scipy.sparse.csr_matrix(latents(9, 3)), np.arange(9) > 3, by="size")  # type: ignore[arg-type]


def test_parents_children_and_twins_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    parent = rng.random(4000) < 0.1
    child = parent & (rng.random(4000) < 0.3)
    everywhere = rng.random(4000) < 0.97
    x_NF = np.stack([parent, child, child, rng.random(4000) < 0.1, everywhere], axis=1).astype(
        np.float32
    )
    w_dec = np.eye(5, 8)
    w_dec[2] = w_dec[1]
    found = related_latents(scipy.sparse.csr_matrix(x_NF), [0, 1], w_dec)
    kinds = {(one.latent, one.other): one for one in found}
    assert set(kinds) == {(0, 1), (0, 2), (1, 0), (1, 2)}
    assert kinds[0, 1].kind == "child"
    assert kinds[1, 0].kind == "parent"
    assert kinds[1, 0].other_given_latent == 1.0
    assert kinds[1, 0].latent_given_other == pytest.approx(child.sum() / parent.sum())
    assert kinds[1, 0].expected == pytest.approx(parent.mean())
    assert kinds[1, 2].kind == "twin"
    assert kinds[1, 2].decoder_cosine == pytest.approx(1.0)
    with pytest.raises(BadSteeringInput, match="latent 9 is none of 5"):
        related_latents(scipy.sparse.csr_matrix(x_NF), [9], w_dec)
