"""Items are labelled, tokens are not: what finds the token, and what may be said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from steering.errors import BadSteeringInput
from steering.probes.methods import fit
from steering.probes.noise.label_flips import FLIPS, flip_labels, noise_sweep
from steering.probes.noise.multiple_instance import MultipleInstanceSpec, fit_bags
from steering.probes.noise.positive_unlabelled import PuSpec, fit_pu, pu_risk
from steering.probes.noise.subsampling import at_most_per_item, subsample_negatives
from steering.probes.noise.token_bags import TokenBags, pool_scores, score_tokens
from steering.probes.noise.token_evaluation import NoiseModel, evaluate_items, evaluate_tokens
from steering.probes.ranking_metrics import auroc
from tests.steering.probes.planted_rows import directions, haystack, latents, parted


def _tokens(bags: TokenBags) -> Any:
    """Each token with its item's label."""
    return bags.y_IL[bags.item_of_token_T]


@pytest.fixture(scope="module")
def haystacks() -> tuple[Any, ...]:
    return haystack(240, 0)[0], haystack(100, 1)[0], *haystack(200, 2)


def test_the_best_token_finds_the_needle_that_token_probes_miss() -> None:
    train, validation = (haystack(200, seed, hay_is_raised=True)[0] for seed in (0, 1))
    test, needle = haystack(200, 2, hay_is_raised=True)
    naive = fit(
        "logistic_l2", {"c": (1.0,)}, train.values_TD, _tokens(train),
        validation.values_TD, _tokens(validation),
    )  # fmt: skip
    token_TL = score_tokens(naive.scores, test.values_TD)
    y = test.y_IL[:, 0]
    by_naive = max(
        auroc(pool_scores(token_TL, test.offsets_I1, how)[:, 0], y) for how in ("max", "mean")
    )
    spec = MultipleInstanceSpec(weight_decay=(0.01,), epochs=25)
    seen: list[tuple[int, int]] = []
    fitted = fit_bags(
        train, validation, spec, on_epoch=lambda done, whole, _: seen.append((done, whole))
    )
    by_item = auroc(fitted.scores(test)[:, 0], y)
    assert by_item > 0.97
    assert by_item > by_naive + 0.1
    assert auroc(fitted.token_scores(test)[:, 0], needle) > 0.97
    assert np.abs(fitted.weights()[0]).argmax() == 0
    assert np.allclose(
        fitted.scores(test), pool_scores(fitted.token_scores(test), test.offsets_I1), atol=1e-4
    )
    assert seen[0] == (1, 25)


def test_attention_reads_more_than_the_mean_of_an_items_tokens(haystacks: tuple[Any, ...]) -> None:
    train, validation, test, _ = haystacks

    def mean(bags: TokenBags) -> Any:
        return pool_scores(bags.values_TD, bags.offsets_I1, "mean")

    by_mean = fit(
        "logistic_l2", {}, mean(train), train.y_IL, mean(validation), validation.y_IL
    ).scores(mean(test))
    spec = MultipleInstanceSpec(pooling="attention", weight_decay=(0.01,), epochs=40)
    attended = fit_bags(train, validation, spec).scores(test)
    y = test.y_IL[:, 0]
    assert auroc(attended[:, 0], y) > max(0.95, auroc(by_mean[:, 0], y) + 0.05)


def test_training_bags_is_repeatable_leaves_torchs_dice_alone_and_takes_sparse_tokens(
    haystacks: tuple[Any, ...],
) -> None:
    train, validation, test, _ = haystacks
    spec = MultipleInstanceSpec(weight_decay=(0.01,), epochs=3)
    before = torch.random.get_rng_state()
    first = fit_bags(train, validation, spec, seed=1, imbalance="pos_weight").scores(test)
    assert torch.equal(before, torch.random.get_rng_state())
    again = fit_bags(train, validation, spec, seed=1, imbalance="pos_weight").scores(test)
    assert np.array_equal(first, again)

    def sparse(bags: TokenBags) -> TokenBags:
        kept = np.where(bags.values_TD > 0.5, bags.values_TD, 0)
        return TokenBags.of(csr_matrix(kept), bags.offsets_I1, bags.y_IL)

    assert fit_bags(sparse(train), sparse(validation), spec).scores(sparse(test)).shape == (200, 1)


def test_several_labels_are_scored_apart() -> None:
    bags, _ = haystack(120, 3)
    both = TokenBags.of(
        bags.values_TD, bags.offsets_I1, np.concatenate([bags.y_IL, ~bags.y_IL], axis=1)
    )
    spec = MultipleInstanceSpec(pooling="attention", weight_decay=(0.01,), epochs=2)
    fitted = fit_bags(both, both, spec)
    assert fitted.scores(both).shape == (120, 2)
    assert fitted.token_scores(both).shape == (both.values_TD.shape[0], 2)
    assert fitted.weights().shape == (2, 8)


def test_bags_are_checked_and_taken_apart() -> None:
    bags = TokenBags.of(np.arange(12.0).reshape(6, 2), [0, 1, 4, 6], [0, 1, 1], ["a", "b", "c"])
    part = bags.take([2, 0])
    assert part.values_TD[:, 0].tolist() == [8, 10, 0]
    assert part.offsets_I1.tolist() == [0, 2, 3]
    assert part.items.tolist() == ["c", "a"]
    assert bags.item_of_token_T.tolist() == [0, 1, 1, 1, 2, 2]
    score = np.arange(6.0)[:, None]
    assert pool_scores(score, bags.offsets_I1, "max")[:, 0].tolist() == [0, 3, 5]
    assert pool_scores(score, bags.offsets_I1, "mean")[:, 0].tolist() == [0, 2, 4.5]
    assert pool_scores(score, bags.offsets_I1, "last")[:, 0].tolist() == [0, 3, 5]
    with pytest.raises(BadSteeringInput, match="1 items have no token"):
        TokenBags.of(np.zeros((3, 2)), [0, 0, 3], [0, 1])
    with pytest.raises(BadSteeringInput, match="from 0 to the 3 tokens"):
        TokenBags.of(np.zeros((3, 2)), [0, 1], [0])
    with pytest.raises(BadSteeringInput, match="known: max, mean, last"):
        pool_scores(score, bags.offsets_I1, "median")


def _missed(rows: int, rate: float, seed: int) -> tuple[Any, Any, Any]:
    """Rows, their true labels, and labels of which so many positives were missed."""
    x, y = directions(rows, width=10, gap=3.0, seed=seed)
    return x, y, flip_labels(y[:, None], rate, "positive_to_negative", items=range(rows))[:, 0]


def test_pu_calls_what_naive_training_misses() -> None:
    """Missed positives hardly move a linear rank (Elkan and Noto 2008), but the even point."""
    x, y, labelled = _missed(2000, 0.7, 0)
    x_val, _, labelled_val = _missed(800, 0.7, 1)
    x_test, y_test, _ = _missed(1500, 0.7, 2)
    share = float((y & ~labelled).sum() / (~labelled).sum())
    naive = fit("logistic_l2", {}, x, labelled, x_val, labelled_val).scores(x_test)[:, 0]
    pu = fit_pu(x, labelled, x_val, labelled_val, PuSpec(positive_share=share)).scores(x_test)
    balanced = [
        ((score > 0)[y_test].mean() + (score <= 0)[~y_test].mean()) / 2 for score in (naive, pu)
    ]
    assert balanced[1] > balanced[0] + 0.15
    assert balanced[1] > 0.85
    assert auroc(pu, y_test) > auroc(naive, y_test) - 0.02


def test_with_certain_negatives_pu_finds_the_tokens_of_positive_items(
    haystacks: tuple[Any, ...],
) -> None:
    train, validation, test, needle = haystacks
    fitted = fit_pu(
        train.values_TD, _tokens(train), validation.values_TD, _tokens(validation),
        PuSpec(positive_share=1 / 30, known="negative"),
    )  # fmt: skip
    score = fitted.scores(test.values_TD)
    assert auroc(score, needle) > 0.95
    assert auroc(pool_scores(score[:, None], test.offsets_I1)[:, 0], test.y_IL[:, 0]) > 0.9
    assert (score > 0).mean() < 0.1


def test_the_pu_risk_is_the_papers_and_never_counts_below_zero() -> None:
    known, other = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0, 1.0])
    sigmoid = torch.sigmoid
    expected = 0.3 * sigmoid(-known).mean() + sigmoid(other).mean() - 0.3 * sigmoid(known).mean()
    assert torch.allclose(pu_risk(known, other, 0.3)[0], expected)
    risk, clipped = pu_risk(torch.tensor([9.0]), torch.tensor([-9.0]), 0.5)
    assert clipped
    assert risk == pytest.approx(0.5 * float(sigmoid(torch.tensor(-9.0))))
    assert pu_risk(torch.tensor([9.0]), torch.tensor([-9.0]), 0.5, non_negative=False)[0] < 0
    x, y = directions(rows=50)
    with pytest.raises(BadSteeringInput, match="known and other rows"):
        fit_pu(x, np.ones(50, bool), x, y, PuSpec(positive_share=0.5))


def test_flips_are_of_whole_items_and_one_sided_where_asked() -> None:
    y = (np.arange(4000) // 2 % 2 == 0)[:, None]
    items = np.arange(4000) // 2
    for flip in FLIPS:
        flipped = flip_labels(y, 0.25, flip, items=items)
        wrong = (flipped != y)[:, 0]
        assert np.array_equal(wrong[::2], wrong[1::2])
        expected = {"symmetric": (0.25, 0.25), "positive_to_negative": (0.25, 0.0)}.get(
            flip, (0.0, 0.25)
        )
        assert wrong[y[:, 0]].mean() == pytest.approx(expected[0], abs=0.03)
        assert wrong[~y[:, 0]].mean() == pytest.approx(expected[1], abs=0.03)
    with pytest.raises(BadSteeringInput, match=r"rate=1\.5"):
        flip_labels(y, 1.5, "symmetric", items=items)


def test_the_noise_sweep_tests_against_clean_labels() -> None:
    x, y = directions(rows=900, width=60)
    points = noise_sweep(
        parted(x, y),
        {"raw": ("logistic_l2", {"c": (1.0,)}), "mean": ("mass_mean", {"iid": (False,)})},
        rates=(0.0, 0.4),
        seeds=(0, 1, 2),
        flips=("symmetric", "positive_to_negative"),
    )
    assert len(points) == 2 * 3 * (2 + 1)

    def mean(method: str, flip: str, rate: float) -> float:
        chosen = [
            p.test_auroc for p in points if (p.method, p.flip, p.rate) == (method, flip, rate)
        ]
        assert len(chosen) == 3
        return float(np.mean(chosen))

    assert mean("raw", "symmetric", 0.0) > mean("raw", "symmetric", 0.4) + 0.05
    assert mean("mean", "symmetric", 0.4) > mean("raw", "symmetric", 0.4)
    assert mean("raw", "positive_to_negative", 0.4) > mean("raw", "symmetric", 0.4)
    wrong = [p.flipped_share for p in points if p.flip == "symmetric" and p.rate == 0.4]
    assert np.mean(wrong) == pytest.approx(0.4, abs=0.05)
    with pytest.raises(BadSteeringInput, match="known: symmetric"):
        noise_sweep(parted(x, y), ["knn"], flips=("both",))  # type: ignore[arg-type]


def test_few_latents_stand_symmetric_noise_better_than_all() -> None:
    x, y = latents(rows=900, width=400)
    points = noise_sweep(
        parted(x, y), {"k": ("k_sparse", {"k": (1,), "c": (1.0,)}), "all": ("logistic_l2", {})},
        rates=(0.35,), flips=("symmetric",),
    )  # fmt: skip
    by_method = {
        name: np.mean([p.test_auroc for p in points if p.method == name]) for name in ("k", "all")
    }
    assert by_method["k"] > by_method["all"]


def test_negatives_are_thinned_and_items_capped() -> None:
    y = np.arange(1000) < 30
    rows = subsample_negatives(y, 2.0)
    assert len(rows) == 90
    assert y[rows].sum() == 30
    assert len(subsample_negatives(y, 1000.0)) == 1000
    items = np.repeat(np.arange(50), 20)
    capped = at_most_per_item(items, 3, seed=1)
    assert np.bincount(items[capped]).tolist() == [3] * 50
    assert not np.array_equal(capped, at_most_per_item(items, 3, seed=2))
    with pytest.raises(BadSteeringInput, match="ratio=0"):
        subsample_negatives(y, 0)
    with pytest.raises(BadSteeringInput, match="at least 1"):
        at_most_per_item(items, 0)


def test_tokens_are_judged_only_under_a_declared_noise_model() -> None:
    random = np.random.default_rng(0)
    is_true = random.random(20000) < 0.3
    score = is_true + random.normal(size=20000)
    labelled = np.where(is_true, random.random(20000) < 0.8, random.random(20000) < 0.25)
    wrong_positive = float((~is_true)[labelled].mean())
    wrong_negative = float(is_true[~labelled].mean())
    items = np.arange(20000) // 20
    with pytest.raises(BadSteeringInput, match="declared noise model"):
        evaluate_tokens(score, labelled, items, None)
    model = NoiseModel(
        kind="class_conditional",
        wrong_among_positive=wrong_positive,
        wrong_among_negative=wrong_negative,
    )
    found = evaluate_tokens(score, labelled, items, model, resamples=100)
    clean = auroc(score, is_true)
    assert found["auroc_as_labelled"].estimate < clean - 0.1
    assert found["auroc"].estimate == pytest.approx(clean, abs=0.02)
    assert found["auroc"].low < clean < found["auroc"].high
    true = evaluate_tokens(score, is_true, items, NoiseModel(kind="clean"), resamples=10)
    assert true["auroc"].estimate == pytest.approx(clean)
    assert model.is_possible(found["auroc_as_labelled"])
    too_noisy = NoiseModel(kind="class_conditional", wrong_among_positive=0.9)
    assert not too_noisy.is_possible(found["auroc_as_labelled"])
    with pytest.raises(ValueError, match="must be below 1"):
        NoiseModel(kind="class_conditional", wrong_among_positive=0.9, wrong_among_negative=0.2)
    with pytest.raises(ValueError, match="clean has no wrong labels"):
        NoiseModel(kind="clean", wrong_among_positive=0.1)


def test_items_are_always_judged(haystacks: tuple[Any, ...]) -> None:
    test = haystacks[2]
    found = evaluate_items(test.values_TD[:, 0], test, resamples=50)
    expected = auroc(pool_scores(test.values_TD[:, :1], test.offsets_I1)[:, 0], test.y_IL[:, 0])
    assert found.value("auroc") == pytest.approx(expected)
    assert found.items == 200
