"""Centroids, triplets, splits: what an objective that can be compared rests on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from steering.styles.centroids import (
    AGGREGATORS,
    centroids,
    confusion,
    macro_accuracy,
    nearest,
)
from steering.styles.errors import BadStyleData
from steering.styles.separation import separation, silhouette, triplet_accuracy
from steering.styles.splits import PARTS, Split, check_no_leak, split_by_item
from steering.styles.triplets import TripletSampler, group_batch


def planted(spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centre_GE = 3 * torch.randn(5, 6, generator=generator)
    group_N = torch.arange(5).repeat_interleave(40)
    return centre_GE[group_N] + spread * torch.randn(200, 6, generator=generator), group_N


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_groups_that_were_planted_are_found(aggregator: str) -> None:
    embedding_NE, group_N = planted()
    point_GE = centroids(embedding_NE, group_N, 5, aggregator)  # type: ignore[arg-type]
    assert macro_accuracy(nearest(embedding_NE, point_GE, "euclidean"), group_N) == 1.0


def test_aggregators_by_numpy_and_their_patience_with_outliers() -> None:
    embedding_NE, group_N = planted()
    own = embedding_NE[group_N == 2].numpy()
    one = torch.zeros(len(own), dtype=torch.long)
    mean, median, trimmed, medoid = (
        centroids(torch.tensor(own), one, 1, a)[0] for a in AGGREGATORS
    )
    assert np.allclose(mean, own.mean(0), atol=1e-5)
    assert np.allclose(median, np.median(own, 0), atol=1e-5)
    assert np.allclose(trimmed, np.sort(own, 0)[4:-4].mean(0), atol=1e-5)
    sums = np.linalg.norm(own[:, None] - own[None], axis=-1).sum(1)
    assert np.allclose(medoid, own[sums.argmin()])
    spoilt = torch.tensor(own)
    spoilt[:4] += 1000
    spoilt_points = {a: centroids(spoilt, one, 1, a)[0] for a in AGGREGATORS}
    assert (spoilt_points["mean"] - mean).norm() > 50
    for robust in ("median", "trimmed", "medoid"):
        assert (spoilt_points[robust] - mean).norm() < 1


def test_accuracy_and_confusion_are_scikit_learn_s() -> None:
    embedding_NE, group_N = planted(spread=4.0)
    predicted_N = nearest(embedding_NE, centroids(embedding_NE, group_N, 5), "cosine")
    assert macro_accuracy(predicted_N, group_N) == pytest.approx(
        balanced_accuracy_score(group_N, predicted_N)
    )
    assert (
        confusion(predicted_N, group_N, 5).numpy() == confusion_matrix(group_N, predicted_N)
    ).all()


def test_the_objective_does_not_change_when_distances_are_rescaled() -> None:
    embedding_NE, group_N = planted(spread=4.0)
    for scale in (0.01, 100.0):
        scaled_NE = scale * embedding_NE
        assert triplet_accuracy(scaled_NE, group_N, "euclidean") == triplet_accuracy(
            embedding_NE, group_N, "euclidean"
        )
        assert separation(scaled_NE, group_N, 5, "euclidean").ratio == pytest.approx(
            separation(embedding_NE, group_N, 5, "euclidean").ratio, rel=1e-4
        )
        assert silhouette(scaled_NE, group_N, "euclidean") == pytest.approx(
            silhouette(embedding_NE, group_N, "euclidean"), abs=1e-4
        )


def test_triplet_accuracy_is_the_auc_of_distances() -> None:
    embedding_NE, group_N = planted(spread=4.0)
    distances = torch.cdist(embedding_NE, embedding_NE)
    upper = torch.triu(torch.ones(200, 200, dtype=torch.bool), diagonal=1)
    same = (group_N.unsqueeze(0) == group_N.unsqueeze(1))[upper]
    auc = roc_auc_score(same, -distances[upper])
    found = np.mean([triplet_accuracy(embedding_NE, group_N, "euclidean", s) for s in range(20)])
    assert found == pytest.approx(auc, abs=0.02)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=60),
    st.integers(0, 1000),
    st.sampled_from(["mixed", "disjoint"]),
)
def test_triplets_are_what_they_are_called(groups: list[int], seed: int, pool: str) -> None:
    group_N = torch.tensor(groups)
    try:
        sampler = TripletSampler(group_N, pool, seed)  # type: ignore[arg-type]
    except ValueError as error:
        assert "no triplet" in str(error)
        return
    drawn = sampler.draw(200, torch.Generator().manual_seed(seed))
    assert (group_N[drawn.anchor_T] == group_N[drawn.positive_T]).all()
    assert (group_N[drawn.anchor_T] != group_N[drawn.negative_T]).all()
    assert (drawn.anchor_T != drawn.positive_T).all()
    if pool == "disjoint":
        others = set(drawn.positive_T.tolist()) | set(drawn.negative_T.tolist())
        assert not set(drawn.anchor_T.tolist()) & others


def test_every_triplet_is_drawn_equally_often_and_counted() -> None:
    group_N = torch.tensor([0, 1, 0, 1, 1, 0])
    sampler = TripletSampler(group_N)
    drawn = sampler.draw(60_000, torch.Generator().manual_seed(0))
    seen = Counter(
        zip(
            drawn.anchor_T.tolist(),
            drawn.positive_T.tolist(),
            drawn.negative_T.tolist(),
            strict=True,
        )
    )
    assert sampler.num_triplets == 36 == len(seen)
    assert max(seen.values()) < 1.2 * min(seen.values())
    assert TripletSampler(group_N, "disjoint").num_triplets < 36


def test_a_batch_for_mining_has_several_samples_of_several_groups() -> None:
    group_N = torch.tensor([0] * 500 + [1] * 10 + [2] * 3)
    batch = group_batch(group_N, 3, 8, torch.Generator().manual_seed(0))
    assert Counter(group_N[batch].tolist()) == {0: 8, 1: 8, 2: 3}


def items_and_groups(num_items: int = 60) -> tuple[list[str], list[str]]:
    items = [f"q{n % num_items}" for n in range(600)]
    groups = [f"g{n // 100}" for n in range(600)]
    return items, groups


def test_no_item_is_in_two_parts_and_every_group_gets_its_share() -> None:
    items, groups = items_and_groups()
    split = split_by_item(items, groups, (0.7, 0.15, 0.15), seed=3)
    check_no_leak(split, items, None)
    assert sorted(row for part in PARTS for row in split.rows[part]) == list(range(600))
    shares = {part: Counter(groups[row] for row in split.rows[part]) for part in PARTS}
    for group in set(groups):
        assert shares["train"][group] == pytest.approx(70, abs=10)
        assert shares["test"][group] == pytest.approx(15, abs=7)
    assert split == split_by_item(items, groups, (0.7, 0.15, 0.15), seed=3)
    assert split != split_by_item(items, groups, (0.7, 0.15, 0.15), seed=4)


def test_a_leak_is_refused_with_examples() -> None:
    rows = {"train": (0, 1), "validation": (2,), "test": (3,)}
    leaky = Split(rows)  # type: ignore[arg-type]
    with pytest.raises(BadStyleData, match="1 rows leak .* item .*'a' in train and validation"):
        check_no_leak(leaky, ["a", "b", "a", "c"], None)
    with pytest.raises(BadStyleData, match="the same text is in two parts"):
        check_no_leak(leaky, ["a", "b", "c", "d"], ["x", "y", "z", "x"])


def test_groups_with_too_few_items_are_named() -> None:
    items = ["i0", "i1", *(f"j{n}" for n in range(20))]
    groups = ["small"] * 2 + ["large"] * 20
    with pytest.raises(BadStyleData, match=r"small \(2 items\).*min_per_group"):
        split_by_item(items, groups)
