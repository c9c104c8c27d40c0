"""Groups' vectors: weights, centring, the report and its warning, the recipe in the artefact."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from steering.composition import CompositionSpec, group_styles, group_vectors, group_weights
from steering.composition.composing import GroupVectors
from steering.composition.weights import Array
from steering.errors import BadSteeringInput
from steering.vectors import About, BadVectors, load_vectors, save_vectors
from steering.vectors_by_attribute import AttributeVectors

NUM_ATTRIBUTES, NUM_GROUPS, WIDTH = 768, 9, 256
GROUPS = [f"group {n}" for n in range(NUM_GROUPS)]


def _attributes(count: int, width: int, common: float) -> AttributeVectors:
    """Random vectors with a common part that is `common` times as long as their own."""
    random = np.random.default_rng(0)
    raw_A1D = random.standard_normal((count, 1, width)) + common * np.ones(width)
    ids = tuple(f"a{n}" for n in range(count))
    return AttributeVectors(
        torch.from_numpy(raw_A1D).float(), ids, ids, ("resid_post.1",), torch.ones(1), About()
    )


@pytest.fixture(scope="module")
def attributes() -> AttributeVectors:
    return _attributes(NUM_ATTRIBUTES, WIDTH, common=2.5)


@pytest.fixture(scope="module")
def style_GA() -> Array:
    """Values in [0, 1], most of them small, as scorers give."""
    random = np.random.default_rng(0)
    return random.beta(1.3, 2.6, (NUM_GROUPS, NUM_ATTRIBUTES))


def _made(attributes: AttributeVectors, style_GA: Array, **spec: object) -> GroupVectors:
    return group_vectors(attributes, style_GA, GROUPS, CompositionSpec.model_validate(spec))


def _mean_cosine(made: GroupVectors) -> float:
    off = ~torch.eye(NUM_GROUPS, dtype=torch.bool)
    return float(made.cosine_LGG[0][off].mean())


def test_uncentred_softmax_at_tau_1_makes_all_groups_the_same(
    attributes: AttributeVectors, style_GA: Array, caplog: pytest.LogCaptureFixture
) -> None:
    made = _made(attributes, style_GA, tau=1, centre=False)
    assert made.weights.effective_G.mean() == pytest.approx(750, abs=5)
    assert made.weights.max_G.mean() == pytest.approx(0.0025, abs=0.0003)
    assert _mean_cosine(made) == pytest.approx(1, abs=1e-4)
    (warning,) = made.warnings()
    assert "nearly the same at resid_post.1 (cosine 1.0000, over 0.95; 750 of 768" in warning
    assert "try centre: true, a tau below 1, weights: top_k" in warning
    assert caplog.messages == [warning]
    assert f"warning: {warning}" in made.report()


def test_centring_and_a_small_tau_tell_groups_apart(
    attributes: AttributeVectors, style_GA: Array, caplog: pytest.LogCaptureFixture
) -> None:
    raw = _made(attributes, style_GA, centre=False)
    assert raw.weights.effective_G.mean() == pytest.approx(20, abs=8)
    assert _mean_cosine(raw) == pytest.approx(0.98, abs=0.02)
    caplog.clear()
    centred = _made(attributes, style_GA)
    assert centred.weights.effective_G.mean() == pytest.approx(20, abs=8)
    assert abs(_mean_cosine(centred)) < 0.05
    assert not centred.warnings()
    assert not caplog.messages


def test_the_top_k_are_those_led_by_most(attributes: AttributeVectors, style_GA: Array) -> None:
    raw = _made(attributes, style_GA, weights="top_k", centre=False)
    centred = _made(attributes, style_GA, weights="top_k")
    assert _mean_cosine(raw) > 0.95
    assert abs(_mean_cosine(centred)) < 0.05
    assert ((centred.weights.weight_GA > 0).sum(axis=1) == 20).all()
    ordered_GA = np.sort(style_GA, axis=0)
    gap_A = ordered_GA[-1] - ordered_GA[-2]
    for place in range(NUM_GROUPS):
        own = np.flatnonzero(style_GA.argmax(axis=0) == place)
        best = set(own[np.argsort(-gap_A[own])[:20]].tolist())
        assert set(np.flatnonzero(centred.weights.weight_GA[place]).tolist()) == best


def test_a_groups_vector_is_the_weighted_sum() -> None:
    attributes = _attributes(5, 8, common=1)
    style_GA = np.random.default_rng(1).random((2, 5))
    for centre in (True, False):
        made = group_vectors(attributes, style_GA, ["x", "y"], CompositionSpec(centre=centre))
        base_GA = style_GA - style_GA.mean(axis=0) if centre else style_GA
        odds_GA = np.exp(base_GA / 0.05)
        weight_GA = torch.from_numpy(odds_GA / odds_GA.sum(axis=1, keepdims=True)).float()
        single_ALD = torch.stack(
            [attributes.of(one, centre=centre).vector_LD for one in attributes.ids]
        )
        for place, group in enumerate(("x", "y")):
            expected_LD = torch.einsum("a,ald->ld", weight_GA[place], single_ALD)
            assert torch.allclose(made.by_group[group].vector_LD, expected_LD, atol=1e-5)


def test_the_recipe_is_in_the_artefact(
    attributes: AttributeVectors, style_GA: Array, tmp_path: Path
) -> None:
    made = _made(attributes, style_GA, weights="top_k", top_k=4)
    save_vectors(tmp_path, made.by_group["group 3"])
    read = load_vectors(tmp_path)
    recipe = read.about.details["recipe"]
    weights = read.about.details["weights"]
    assert recipe == {
        "weights": "top_k", "aggregator": "median", "tau": 0.05, "top_k": 4, "centre": True,
        "similar": 0.95,
    }  # fmt: skip
    assert isinstance(weights, dict)
    assert len(weights) == 4
    numbers = [float(weight) for weight in weights.values() if isinstance(weight, float)]
    assert sum(numbers) == pytest.approx(1)
    assert read.about.formula == "attributes_top_k"
    assert read.about.parents["attribute_vectors"] == attributes.sha256
    again_LD = sum(
        weight * attributes.of(one).vector_LD
        for one, weight in weights.items()
        if isinstance(weight, float)
    )
    assert isinstance(again_LD, torch.Tensor)
    assert torch.allclose(again_LD, read.vector_LD, atol=1e-4)


def test_the_report_has_a_row_a_group(attributes: AttributeVectors, style_GA: Array) -> None:
    made = _made(attributes, style_GA)
    rows = made.rows()
    assert [row["group"] for row in rows] == GROUPS
    heaviest = made.weights.ids[int(made.weights.weight_GA[2].argmax())]
    assert rows[2]["heaviest"].split("; ")[0] == heaviest == made.weights.top("group 2", 1)[0]
    text = made.report()
    assert "resid_post.1: cosine between groups" in text
    assert all(group in text for group in GROUPS)


def test_a_group_of_one_attribute_is_pointed_out() -> None:
    attributes = _attributes(3, 8, common=0)
    style_GA = np.array([[0.9, 0.1, 0.1], [0.3, 0.5, 0.5]])
    made = group_vectors(attributes, style_GA, ["x", "y"])
    (warning,) = made.warnings()
    assert "one attribute is over 90% of the vector of x (a0); " in warning
    assert "a tau above 0.05" in warning
    wider = group_vectors(attributes, style_GA, ["x", "y"], CompositionSpec(tau=1))
    assert not wider.warnings()


def test_styles_are_aligned_by_attribute(attributes: AttributeVectors, style_GA: Array) -> None:
    order = np.random.default_rng(2).permutation(NUM_ATTRIBUTES)
    ids = [attributes.ids[place] for place in order]
    one = group_vectors(attributes, style_GA, GROUPS)
    other = group_vectors(attributes, style_GA[:, order], GROUPS, style_ids=ids)
    assert torch.equal(one.by_group["group 0"].vector_LD, other.by_group["group 0"].vector_LD)
    with pytest.raises(BadSteeringInput, match="lack 1 of the attributes"):
        group_vectors(attributes, style_GA[:, 1:], GROUPS, style_ids=attributes.ids[1:])


def test_group_styles_are_medians_or_means() -> None:
    style_NA = np.array([[0.0, 0.2], [0.1, 0.2], [0.9, 0.5], [0.4, 0.4]])
    labels = ["b", "b", "b", "a"]
    groups, medians = group_styles(style_NA, labels)
    assert groups == ("a", "b")
    assert medians.tolist() == [[0.4, 0.4], [0.1, 0.2]]
    _, means = group_styles(style_NA, labels, "mean")
    assert means[1].tolist() == pytest.approx([1 / 3, 0.3])


def test_bad_input_is_refused(
    attributes: AttributeVectors, style_GA: Array, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BadSteeringInput, match=r"styles of shape \(9, 768\) for 2 groups"):
        group_vectors(attributes, style_GA, ["a", "b"])
    with pytest.raises(BadSteeringInput, match="of at least two groups"):
        group_weights(style_GA[:1], ["a"], attributes.ids, CompositionSpec())
    with pytest.raises(BadSteeringInput, match="group styles hold NaN"):
        group_vectors(attributes, style_GA * np.nan, GROUPS)
    with pytest.raises(BadSteeringInput, match="NaN or infinite numbers in 1 rows, first row 1"):
        group_styles(np.array([[0.0], [np.nan]]), ["a", "b"])
    with pytest.raises(BadSteeringInput, match="3 labels"):
        group_styles(np.ones((2, 2)), ["a", "b", "c"])
    beaten = np.array([[1.0, 1.0, 1.0], [0.0, 0.5, 0.2]])
    spec = CompositionSpec(weights="top_k", top_k=2)
    with pytest.raises(BadSteeringInput, match="lead in no attribute have no top 2: b"):
        group_weights(beaten, ["a", "b"], ["x", "y", "z"], spec)
    beaten[1, 2] = 2
    with caplog.at_level(logging.WARNING):
        group_weights(beaten, ["a", "b"], ["x", "y", "z"], spec)
    assert "group b leads in 1 attributes, not 2" in caplog.text
    with pytest.raises(BadVectors, match="attributes come twice: a"):
        AttributeVectors(torch.ones(2, 1, 3), ("a", "a"), ("", ""), ("h",), torch.ones(1), About())
