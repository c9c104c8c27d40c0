"""Planted directions are found; the mean difference is that of the steering-vectors package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sae.language_model import LanguageModel
from sae.stream_errors import UnknownHook
from steering.directions import contrast, method_names, one_vs_rest, separation, with_norms
from steering.directions.contrast_methods import contrast_method
from steering.directions.pooled_reading import MAX_NORMS, NormMeter
from steering.directions.positions import read_at
from steering.errors import BadSteeringInput
from steering.reading import read_pooled
from tests.sae.tiny_model import FAMILIES, Family
from tests.steering.directions.planted_model import cosine, directions, plant, sentences, tiny_lm

HOOKS = ["resid_post.0", "resid_post.1"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model in which "+" and "-" differ by direction 0 of `directions(1)`."""
    model = tiny_lm(tmp_path_factory.mktemp("planted"))
    (direction_D,) = directions(1)
    plant(model, {"+": direction_D, "-": -direction_D}, size=3)
    return model


@pytest.mark.parametrize("method", method_names())
def test_every_method_finds_a_planted_direction(lm: LanguageModel, method: str) -> None:
    found = contrast(lm, sentences("+", 60, 0), sentences("-", 60, 1), HOOKS, method)
    for hook in HOOKS:
        assert cosine(found.unit(hook), directions(1)[0]) > 0.99
    assert found.about.formula == method
    assert found.about.read_position == "last"
    assert found.about.read_hooks == tuple(HOOKS)


@pytest.mark.parametrize("method", method_names())
def test_swapped_sides_give_the_opposite_direction(lm: LanguageModel, method: str) -> None:
    one, other = sentences("+", 20, 0), sentences("-", 20, 1)
    there = contrast(lm, one, other, ["resid_post.1"], method)
    back = contrast(lm, other, one, ["resid_post.1"], method)
    assert cosine(there.unit("resid_post.1"), back.unit("resid_post.1")) < -0.999


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_found_in_every_family_from_the_mean_of_all_tokens(
    family: Family, tmp_path: Path
) -> None:
    lm = tiny_lm(tmp_path, family)
    (direction_D,) = directions(1)
    # Large, as Gemma 2 adds normed outputs of its sublayers, whatever came in.
    plant(lm, {"+": direction_D, "-": -direction_D}, size=400)
    found = contrast(
        lm, sentences("+", 80, 0), sentences("-", 80, 1), ["resid_post.0"], pooling="mean"
    )
    assert cosine(found.unit("resid_post.0"), direction_D) > 0.99


def test_read_and_write_hooks_may_differ(lm: LanguageModel) -> None:
    one, other = sentences("+", 8, 0), sentences("-", 8, 1)
    found = contrast(lm, one, other, ["mlp_out.2"], read_hooks=["resid_post.0"])
    plain = contrast(lm, one, other, ["resid_post.0"])
    assert torch.equal(found.vector_LD, plain.vector_LD)
    assert found.hooks == ("mlp_out.2",)
    assert found.about.read_hooks == ("resid_post.0",)
    assert found.about.norm_hooks == ("resid_post.2",)


def test_a_strength_is_a_fraction_of_the_residual_norm(lm: LanguageModel) -> None:
    texts = [*sentences("+", 9, 0), *sentences("-", 9, 1)]
    found = contrast(lm, texts[:9], texts[9:], ["mlp_out.1"])
    norms = []
    for text in texts:
        ids = [lm.bos_token_id, *lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
        acts = lm.activations(torch.tensor([ids]), ["resid_post.1"])["resid_post.1"]
        norms += acts[0, 1:].norm(dim=-1).tolist()
    assert float(found.norm_L[0]) == pytest.approx(float(np.median(norms)), rel=2e-2)
    assert float(found.displacement("mlp_out.1", 0.25).norm()) == pytest.approx(
        0.25 * float(found.norm_L[0]), rel=1e-5
    )


def test_a_mean_of_a_stream_is_the_mean_of_all(lm: LanguageModel) -> None:
    one, other = sentences("+", 33, 0), sentences("-", 21, 1)
    found = contrast(lm, one, other, HOOKS, pooling="mean")
    ones, others = (read_pooled(lm, texts, HOOKS, "mean") for texts in (one, other))
    for hook in HOOKS:
        expected_D = ones[hook].mean(dim=0) - others[hook].mean(dim=0)
        assert torch.allclose(found.vector_LD[found.row(hook)], expected_D, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("index", [-1, -2])
def test_mean_difference_equals_the_steering_vectors_package(
    family: Family, index: int, tmp_path: Path
) -> None:
    """Its index counts the tokens that its tokenizer gives, so the model here has no BOS."""
    from steering_vectors import train_steering_vector

    lm = tiny_lm(tmp_path, family, bos=False)
    one, other = sentences("+", 17, 0), sentences("-", 17, 1)
    ours = contrast(lm, one, other, ["resid_post.0", "resid_post.2"], pooling=index)
    mlp = contrast(lm, one, other, ["mlp_out.1"], pooling=index)
    pairs = list(zip(one, other, strict=True))
    same = {"read_token_index": index, "batch_size": 5}
    theirs = train_steering_vector(lm.model, lm.tokenizer, pairs, layers=[0, 2], **same)
    their_mlp = train_steering_vector(
        lm.model, lm.tokenizer, pairs, layers=[1], layer_type="mlp", **same
    )
    for place, layer in enumerate((0, 2)):
        their_D = theirs.layer_activations[layer]
        assert torch.allclose(ours.vector_LD[place], their_D, rtol=1e-4, atol=1e-6)
    assert torch.allclose(mlp.vector_LD[0], their_mlp.layer_activations[1], rtol=1e-4, atol=1e-6)


def test_pca_of_differences_loses_a_consistent_shift() -> None:
    """Trap 1: centring takes away the mean of the differences, which is the direction."""
    from sklearn.decomposition import PCA

    random = np.random.default_rng(0)
    direction_D = np.eye(32)[0]
    middle_PD = random.standard_normal((400, 32)) * 3
    positive_PD = middle_PD + 2.5 * direction_D + random.standard_normal((400, 32)) / 2
    negative_PD = middle_PD - 2.5 * direction_D + random.standard_normal((400, 32)) / 2

    def found(method: str) -> float:
        vector_D = contrast_method(method).direction(positive_PD, negative_PD)
        return float(vector_D @ direction_D / np.linalg.norm(vector_D))

    pca_diff_D = PCA(n_components=1).fit(positive_PD - negative_PD).components_[0]
    assert abs(float(pca_diff_D @ direction_D)) < 0.5
    assert found("mean_difference") > 0.995
    assert found("pca_pairwise") > 0.995


@pytest.mark.parametrize("shape", [(5, 40), (40, 5)])
def test_pca_pairwise_is_scikit_learns_on_pairwise_centred_rows(shape: tuple[int, int]) -> None:
    from sklearn.decomposition import PCA

    random = np.random.default_rng(3)
    positive_PD, negative_PD = random.standard_normal(shape) + 1, random.standard_normal(shape)
    middle_PD = (positive_PD + negative_PD) / 2
    rows = np.concatenate([positive_PD - middle_PD, negative_PD - middle_PD])
    their_D = PCA(n_components=1).fit(rows).components_[0]
    our_D = contrast_method("pca_pairwise").direction(positive_PD, negative_PD)
    assert abs(float(our_D @ their_D)) == pytest.approx(1, abs=1e-6)
    assert float(((positive_PD - negative_PD) @ our_D > 0).mean()) >= 0.5


def test_rows_of_many_texts_lie_in_a_file_and_give_the_same(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = sentences("+", 12, 0), sentences("-", 12, 1)
    there = contrast(lm, one, other, HOOKS, "pca_pairwise")
    monkeypatch.setattr("steering.directions.contrasting.MAX_ROWS_BYTES", 0)
    assert torch.equal(contrast(lm, one, other, HOOKS, "pca_pairwise").vector_LD, there.vector_LD)


def test_all_hooks_are_read_in_one_pass(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = LanguageModel.activations

    def counted(self: LanguageModel, tokens: torch.Tensor, hooks: list[str]) -> object:
        calls.append(len(tokens))
        return plain(self, tokens, hooks)

    monkeypatch.setattr(LanguageModel, "activations", counted)
    contrast(lm, sentences("+", 10, 0), sentences("-", 10, 1), [*HOOKS, "mlp_out.0"], "logistic")
    assert sum(calls) == 20


def test_one_vs_rest_finds_each_style(tmp_path: Path) -> None:
    lm = tiny_lm(tmp_path)
    planted = directions(3)
    plant(lm, dict(zip("+-*", planted, strict=True)), size=3)
    texts = [text for mark in "+-*" for text in sentences(mark, 40, 0)]
    labels = [name for name in ("plus", "minus", "star") for _ in range(40)]
    found = one_vs_rest(lm, texts, labels, ["resid_post.0"])
    assert set(found) == {"plus", "minus", "star"}
    for name, own in (("plus", 0), ("minus", 1), ("star", 2)):
        expected_D = planted[own] - (planted.sum(dim=0) - planted[own]) / 2
        assert cosine(found[name].unit("resid_post.0"), expected_D) > 0.99
    rest = [text for text, label in zip(texts, labels, strict=True) if label != "plus"]
    same = contrast(lm, texts[:40], rest, ["resid_post.0"])
    assert torch.allclose(same.vector_LD, found["plus"].vector_LD, atol=1e-6)


def test_held_out_texts_are_told_apart_by_projection(lm: LanguageModel) -> None:
    found = contrast(lm, sentences("+", 20, 0), sentences("-", 20, 1), HOOKS)
    there = separation(lm, found, sentences("+", 15, 2), sentences("-", 15, 3))
    back = separation(lm, found, sentences("-", 15, 3), sentences("+", 15, 2))
    assert there == dict.fromkeys(HOOKS, 1.0)
    assert back == dict.fromkeys(HOOKS, 0.0)


def test_positions_count_the_texts_own_tokens() -> None:
    acts_NTD = torch.arange(12.0).view(2, 6, 1)
    is_text_NT = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    expected: dict[str | int, list[float]] = {"last": [3, 11], "first": [1, 7], "mean": [2, 9]}
    expected |= {-1: [3, 11], -2: [2, 10], 0: [1, 7], 2: [3, 9], "max": [3, 11]}
    for position, values in expected.items():
        assert read_at(acts_NTD, is_text_NT, position).flatten().tolist() == values  # type: ignore[arg-type]
    for index in (3, -4):
        with pytest.raises(
            BadSteeringInput, match=r"position -?\d asks for a token .* of 3 tokens"
        ):
            read_at(acts_NTD, is_text_NT, index)


def test_norms_of_many_tokens_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.directions.pooled_reading.MAX_NORMS", 64)
    meter = NormMeter(["a"])
    norms = torch.linspace(1, 2, 1000)[
        torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    ]
    for part in norms.chunk(59):
        is_text = torch.ones(1, len(part), dtype=torch.bool)
        meter.add({"a": part.view(1, -1, 1)}, is_text)
    assert meter.num_tokens == 1000
    assert float(meter.median_L[0]) == pytest.approx(1.5, abs=0.12)
    assert sum(len(kept) for kept in meter._kept["a"]) <= 64
    assert MAX_NORMS > 64


def test_norms_can_be_measured_later(lm: LanguageModel) -> None:
    one, other = sentences("+", 9, 0), sentences("-", 9, 1)
    found = contrast(lm, one, other, HOOKS)
    lost = type(found)(found.vector_LD, found.hooks, torch.zeros(2), found.about)
    assert torch.equal(with_norms(lm, lost, [*one, *other]).norm_L, found.norm_L)


def test_bad_input_is_refused_with_the_way_out(lm: LanguageModel) -> None:
    one, other = sentences("+", 3, 0), sentences("-", 2, 1)
    with pytest.raises(BadSteeringInput, match=r"'pca_pairwis'.*Did you mean 'pca_pairwise'"):
        contrast(lm, one, other, HOOKS, "pca_pairwis")
    with pytest.raises(BadSteeringInput, match="takes pairs, and there are 3 positive and 2"):
        contrast(lm, one, other, HOOKS, "pca_pairwise")
    with pytest.raises(BadSteeringInput, match="the negative side is empty"):
        contrast(lm, one, [], HOOKS)
    with pytest.raises(BadSteeringInput, match="the positive side is one string"):
        contrast(lm, "one", other, HOOKS)
    with pytest.raises(BadSteeringInput, match="1 read hooks for 2 write hooks"):
        contrast(lm, one, other, HOOKS, read_hooks=["resid_post.0"])
    with pytest.raises(BadSteeringInput, match="hooks='resid_post.0' must be a list"):
        contrast(lm, one, other, "resid_post.0")
    with pytest.raises(BadSteeringInput, match="text 3 is empty"):
        contrast(lm, one, ["", "x"], HOOKS)
    with pytest.raises(UnknownHook, match="layers 0 to 2"):
        contrast(lm, one, other, ["resid_post.9"])
    with pytest.raises(BadSteeringInput, match="3 texts with 2 labels"):
        one_vs_rest(lm, one, ["a", "b"], HOOKS)
