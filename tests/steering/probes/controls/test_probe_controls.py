"""Controls: shuffled labels, selectivity, surface baselines, random latents, quiver, seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from steering.errors import BadSteeringInput
from steering.probes.controls import (
    Arrow,
    bag_of_words,
    control_labels,
    firing_rates,
    length_features,
    matched_random_latents,
    metadata_features,
    over_seeds,
    paired_auroc_gain,
    quiver_gain,
    random_latents_control,
    selectivity,
    shuffled_control,
    shuffled_parts,
    triviality_baselines,
)
from steering.probes.parts import Parts, fit_parts, macro_auroc
from tests.steering.probes.planted_rows import directions, latents, parted

FEW = {"c": (0.1,)}


def _items_that_show(items: int = 120, rows: int = 5, seed: int = 0) -> tuple[Any, Any, Any]:
    """Rows that show which item they are of, and labels that hang on the item by chance."""
    random = np.random.default_rng(seed)
    name_NI = np.repeat(np.arange(items), rows)
    place = random.normal(size=(items, 200))
    x = place[name_NI] + 0.3 * random.normal(size=(items * rows, 200))
    return x, (random.random(items) < 0.5)[name_NI], name_NI


def _by_row(x: Any, y: Any, items: Any) -> Parts:
    order = np.random.default_rng(1).permutation(len(y))
    return parted(x[order], y[order], items[order])


def test_shuffled_labels_give_a_half() -> None:
    x, y = directions(rows=1200)
    parts = parted(x, y)
    assert (
        macro_auroc(fit_parts("logistic_l2", FEW, parts).scores(parts.test.x), parts.test.y_NL)
        > 0.85
    )
    control = shuffled_control("logistic_l2", FEW, parts, shuffles=8)
    assert control.mean == pytest.approx(0.5, abs=0.05)
    assert control.verdict == "as expected"
    assert control.low < 0.5 < control.high
    assert control.one_low < control.low
    assert control.as_json()["verdict"] == "as expected"


def test_a_leak_across_items_inflates_a_split_by_row_and_is_caught_there() -> None:
    x, y, items = _items_that_show()
    leaking, honest = _by_row(x, y, items), parted(x, y, items)
    assert leaking.shared_items and not honest.shared_items
    for parts, low, high in ((leaking, 0.9, 1.1), (honest, 0.3, 0.7)):
        fitted = fit_parts("logistic_l2", FEW, parts)
        assert low < macro_auroc(fitted.scores(parts.test.x), parts.test.y_NL) < high
    caught = shuffled_control("logistic_l2", FEW, leaking)
    assert caught.verdict == "leak?"
    assert caught.mean > 0.9
    assert shuffled_control("logistic_l2", FEW, honest).verdict == "as expected"


def test_shuffling_keeps_items_whole_and_parts_balanced() -> None:
    x, y, items = _items_that_show()
    two = np.stack([y, ~y], axis=1)
    for parts in (_by_row(x, two, items), parted(x, two, items)):
        shuffled = shuffled_parts(parts, seed=3)
        label_of: dict[str, bool] = {}
        for part, before in zip(shuffled.all, parts.all, strict=True):
            assert not np.array_equal(part.y_NL, before.y_NL)
            assert (part.y_NL[:, 0] != part.y_NL[:, 1]).all()
            for item, label in zip(part.items.tolist(), part.y_NL[:, 0].tolist(), strict=True):
                assert label_of.setdefault(item, label) == label
    by_item = shuffled_parts(parted(x, two, items), seed=3)
    for part, before in zip(by_item.all, parted(x, two, items).all, strict=True):
        assert part.y_NL[:, 0].sum() == before.y_NL[:, 0].sum()


def test_labels_that_differ_within_items_move_in_runs() -> None:
    lengths = np.random.default_rng(0).integers(5, 30, 60)
    items = np.repeat(np.arange(60), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    y = place < 4
    parts = parted(np.zeros((len(y), 1)) + place[:, None], y, items, shares=(0.5, 0.25))
    shuffled = shuffled_parts(parts, seed=0)
    for part, before in zip(shuffled.all, parts.all, strict=True):
        assert part.y_NL.sum() == before.y_NL.sum()
        changes = (part.y_NL[1:] != part.y_NL[:-1]).sum()
        assert changes == pytest.approx((before.y_NL[1:] != before.y_NL[:-1]).sum(), abs=3)


def test_control_labels_belong_to_types_and_not_to_parts() -> None:
    share = np.array([0.3, 0.7])
    whole = control_labels([f"t{n}" for n in range(2000)], share, seed=1)
    assert np.allclose(whole.mean(axis=0), share, atol=0.05)
    assert np.array_equal(control_labels(["t5", "t5", "t9"], share, 1), whole[[5, 5, 9]])
    assert not np.array_equal(control_labels([f"t{n}" for n in range(2000)], share, 2), whole)


def test_a_probe_that_remembers_types_is_less_selective() -> None:
    """Rows of 40 words: the label is a direction, but each word has a place of its own."""
    random = np.random.default_rng(0)
    rows = 1200
    word_N = random.integers(0, 40, rows)
    y = random.random(rows) < 0.5
    words_ND = random.normal(size=(40, 48))[word_N]
    x = np.concatenate([words_ND, 2.5 * y[:, None] + random.normal(size=(rows, 1))], axis=1)
    parts = parted(x, y)
    cuts = (int(0.5 * rows), int(0.7 * rows))
    types = (word_N[: cuts[0]], word_N[cuts[0] : cuts[1]], word_N[cuts[1] :])
    remembering = selectivity("logistic_l2", {"c": (1.0,)}, parts, types)
    assert remembering.recurring_share == 1.0
    assert remembering.control.mean > 0.9
    one = parts.columns(np.array([48]))
    selective = selectivity("logistic_l2", {"c": (1.0,)}, one, types)
    assert selective.real.mean > 0.9
    assert selective.difference.mean > remembering.difference.mean + 0.2
    nothing = selectivity("logistic_l2", {"c": (1.0,)}, one)
    assert nothing.recurring_share == 0.0
    with pytest.raises(BadSteeringInput, match="at least 3"):
        selectivity("logistic_l2", {}, one, seeds=(0, 1))


def _texts(rows: int = 300) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(0)
    y = random.random(rows) < 0.5
    words = ["sun", "moon", "tree", "stone"]
    texts = [
        " ".join(random.choice(words, 6)) + (" rain" if label else " snow") for label in y.tolist()
    ]
    meta = [{"year": 1990 + 20 * bool(label), "by": None} for label in y.tolist()]
    return texts, y, meta


def test_words_length_and_metadata_are_baselines() -> None:
    texts, y, meta = _texts()
    parts = parted(np.zeros((300, 2)), y)
    cut = (slice(0, 150), slice(150, 210), slice(210, 300))
    found = triviality_baselines(
        parts, (texts[cut[0]], texts[cut[1]], texts[cut[2]]), tuple(meta[one] for one in cut)
    )
    assert set(found) == {"bag_of_words", "length", "metadata"}
    assert found["bag_of_words"].test_auroc == 1.0
    assert found["metadata"].test_auroc == 1.0
    assert found["length"].test_auroc == pytest.approx(0.5, abs=0.2)
    longer = [text * (1 + int(label)) for text, label in zip(texts, y.tolist(), strict=True)]
    again = triviality_baselines(parts, (longer[cut[0]], longer[cut[1]], longer[cut[2]]))
    assert set(again) == {"bag_of_words", "length"}
    assert again["length"].test_auroc > 0.99
    with pytest.raises(BadSteeringInput, match="one a row"):
        triviality_baselines(parts, (texts, texts, texts))


def test_surface_features_learn_from_training_texts_only() -> None:
    train, other = bag_of_words(["a b", "a c", "!"], ["zebra a"])
    assert train.shape[1] == other.shape[1]
    assert other.nnz == 1
    assert length_features(["a bc\nd", ""])[:, :3].tolist() == [[6, 3, 2], [0, 0, 1]]
    first, second = metadata_features(
        [{"who": "x", "n": 2, "gone": None}, {"who": "y", "n": float("nan")}], [{"who": "z"}]
    )
    assert first.toarray().tolist() == [[2, 1, 0], [0, 0, 1]]
    assert second.nnz == 0
    with pytest.raises(BadSteeringInput, match="training texts"):
        bag_of_words(["", " "])


def test_random_latents_fire_as_often_and_are_others() -> None:
    x, y = latents(rows=1000, width=400)
    rate = firing_rates(x)
    assert np.allclose(rate, firing_rates(x.toarray()))
    chosen = [7, 3, 100]
    found = matched_random_latents(rate, chosen, seed=0)
    assert len(set(found.tolist()) - set(chosen)) == 3
    assert np.all(np.abs(np.log(rate[found] / rate[chosen])) < 0.5)
    assert not np.array_equal(found, matched_random_latents(rate, chosen, seed=1))
    control = random_latents_control(parted(x, y), [7], seeds=(0, 1, 2))
    assert control.mean == pytest.approx(0.5, abs=0.1)
    assert len(control.values) == 3
    with pytest.raises(BadSteeringInput, match="0 other latents fire"):
        matched_random_latents(firing_rates(csr_matrix(np.eye(3)[:, :1])), [0], seed=0)


def test_the_quiver_counts_a_choice_made_on_validation() -> None:
    arrows = []
    for problem in range(20):
        name = f"problem {problem}"
        sae_wins = problem < 5
        arrows += [
            Arrow(name, "logistic_l2", False, 0.90, 0.88),
            Arrow(name, "knn", False, 0.80, 0.99),
            Arrow(name, "k_sparse", True, 0.95 if sae_wins else 0.90, 0.92 if sae_wins else 0.5),
        ]
    gain = quiver_gain(arrows)
    assert gain.gain.estimate == pytest.approx(5 / 20 * 0.04)
    assert gain.sae_share == 0.25
    assert gain.over == "problems"
    assert 0 <= gain.gain.low < gain.gain.estimate < gain.gain.high
    with pytest.raises(BadSteeringInput, match="only SAE probes"):
        quiver_gain([arrow for arrow in arrows if arrow.is_sae])


def test_the_gain_of_one_problem_has_an_interval_over_items() -> None:
    random = np.random.default_rng(0)
    y = random.random(400) < 0.5
    good, bad = y + random.normal(size=400) * 0.5, y + random.normal(size=400) * 3
    arrows = [
        Arrow("one", "raw", False, 0.6, macro_auroc(bad[:, None], y[:, None]), bad[:, None]),
        Arrow("one", "sae", True, 0.9, macro_auroc(good[:, None], y[:, None]), good[:, None]),
    ]
    gain = quiver_gain(arrows, y=y, items=range(400))
    assert gain.over == "items"
    assert gain.gain.estimate == pytest.approx(arrows[1].test_auroc - arrows[0].test_auroc)
    assert gain.gain.low > 0.1
    assert np.isnan(quiver_gain(arrows).gain.low)
    assert paired_auroc_gain(good, good, y, range(400)).high == 0.0


def test_splits_of_one_data_set_are_no_problems_of_their_own() -> None:
    gains = (0.01, 0.02, 0.06)
    arrows = [
        arrow
        for split, gain in enumerate(gains)
        for arrow in (
            Arrow("texts", "raw", False, 0.8, 0.80, split=str(split)),
            Arrow("texts", "sae", True, 0.9, 0.80 + gain, split=str(split)),
        )
    ]
    found = quiver_gain(arrows)
    assert found.gain.estimate == pytest.approx(0.03)
    assert np.isnan(found.gain.low) and np.isnan(found.gain.high)
    assert found.over == "nothing"
    assert list(found.gains.values()) == pytest.approx(gains)
    assert found.sae_share == 1.0
    other = quiver_gain([*arrows, Arrow("other", "raw", False, 0.8, 0.8)])
    assert other.over == "problems"
    assert other.gain.estimate == pytest.approx(0.015)


def test_an_interval_over_seeds_ends_where_its_number_does() -> None:
    summary = over_seeds([0.98, 0.90, 1.0])
    assert summary.high == 1.0
    assert 0.5 < summary.low < summary.mean
    assert over_seeds([0.02, 0.1, 0.0]).low == 0.0
    assert -1.0 < over_seeds([-0.2, 0.5, 0.3], within=(-1.0, 1.0)).low < -0.2


def test_three_seeds_are_the_least() -> None:
    summary = over_seeds([0.5, 0.6, 0.7])
    assert summary.mean == pytest.approx(0.6)
    assert summary.spread == pytest.approx(0.1)
    assert summary.high == pytest.approx(0.6 + 4.3027 * 0.1 / np.sqrt(3), abs=1e-4)
    with pytest.raises(BadSteeringInput, match="run at least 3"):
        over_seeds([0.5, 0.6])
