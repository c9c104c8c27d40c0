"""The artefact: what is written is read, and what is broken or does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sae.language_model import LanguageModel
from sae.stream_errors import UnknownHook
from steering.directions import contrast
from steering.vectors import About, BadVectors, SteeringVectors, load_vectors, save_vectors
from tests.steering.directions.planted_model import sentences, tiny_lm

HOOKS = ("resid_post.0", "mlp_out.1")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_lm(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def vectors(lm: LanguageModel) -> SteeringVectors:
    found = contrast(lm, sentences("+", 6, 0), sentences("-", 6, 1), HOOKS)
    curve = ({"strength": 0.2, "effect": 0.5}, {"strength": 0.4, "effect": 0.7})
    return found.with_suggestion("mlp_out.1", 0.4, curve)


def test_a_round_trip_keeps_everything(vectors: SteeringVectors, tmp_path: Path) -> None:
    save_vectors(tmp_path / "v", vectors)
    read = load_vectors(tmp_path / "v")
    assert torch.equal(read.vector_LD, vectors.vector_LD)
    assert torch.equal(read.norm_L, vectors.norm_L)
    assert (read.hooks, read.about, read.sha256) == (vectors.hooks, vectors.about, vectors.sha256)
    assert read.about.suggested_strength == 0.4
    assert len(read.about.validation) == 2
    said = json.loads((tmp_path / "v" / "vectors.json").read_text())
    assert said["raw_norms"] == pytest.approx(vectors.raw_norm_L.tolist())
    save_vectors(tmp_path / "v", read)
    assert load_vectors(tmp_path / "v").sha256 == vectors.sha256


def test_some_hooks_can_be_taken(vectors: SteeringVectors) -> None:
    some = vectors.only("mlp_out.1")
    assert some.hooks == ("mlp_out.1",)
    assert torch.equal(some.displacement("mlp_out.1", 1), vectors.displacement("mlp_out.1", 1))
    assert some.about.norm_hooks == ("resid_post.1",)
    assert some.about.read_hooks == ("mlp_out.1",)


def test_the_natural_strength_adds_the_vector_as_it_is(vectors: SteeringVectors) -> None:
    strength = vectors.natural_strength("resid_post.0")
    added_D = vectors.displacement("resid_post.0", strength)
    assert torch.allclose(added_D, vectors.vector_LD[0], atol=1e-6)


def test_broken_folders_are_refused(vectors: SteeringVectors, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    with pytest.raises(BadVectors, match=r"holds no steering vectors \(vectors.json is not there"):
        load_vectors(folder)
    save_vectors(folder, vectors)
    text = (folder / "vectors.json").read_text()
    whole = (folder / "vectors.safetensors").read_bytes()
    (folder / "vectors.safetensors").write_bytes(whole[:-4])
    with pytest.raises(BadVectors, match=r"is not what vectors.json was written for"):
        load_vectors(folder)
    (folder / "vectors.safetensors").unlink()
    with pytest.raises(BadVectors, match=r"lacks vectors.safetensors"):
        load_vectors(folder)
    (folder / "vectors.safetensors").write_bytes(whole)
    for changed, said in (
        (text[:50], r"vectors.json is broken"),
        ("[]", "no JSON object"),
        (text.replace('"steering_vectors"', '"probe"'), "holds 'probe', not 'steering_vectors'"),
        (text.replace('"format": 1', '"format": 99'), "has format 99, and this version reads 1"),
        (text.replace('"formula"', '"formule"'), "formule: Extra inputs are not permitted"),
        (text.replace('"resid_post.0",\n  "mlp_out.1"', '"resid_post.0"', 1), "do not fit 1 hooks"),
    ):
        (folder / "vectors.json").write_text(changed)
        with pytest.raises(BadVectors, match=said):
            load_vectors(folder)


def test_another_model_is_refused_unless_it_is_meant(
    vectors: SteeringVectors, lm: LanguageModel, tmp_path: Path
) -> None:
    vectors.check_model(lm)
    other = tiny_lm(tmp_path, "gpt2")
    with pytest.raises(BadVectors, match=r"made of llama-True .*, and this is gpt2-True"):
        vectors.check_model(other)
    vectors.check_model(other, other_weights=True)
    wide = SteeringVectors(torch.ones(1, 33), ("resid_post.0",), torch.ones(1))
    with pytest.raises(BadVectors, match=r"33 wide, but llama-True has 32 .* an unknown model"):
        wide.check_model(lm)
    with pytest.raises(UnknownHook):
        SteeringVectors(torch.ones(1, 32), ("resid_post.7",), torch.ones(1)).check_model(lm)


def test_what_means_nothing_is_refused() -> None:
    two = torch.ones(2, 4)
    with pytest.raises(BadVectors, match="do not fit 1 hooks"):
        SteeringVectors(two, ("a",), torch.ones(1))
    with pytest.raises(BadVectors, match="name one twice"):
        SteeringVectors(two, ("a", "a"), torch.ones(2))
    with pytest.raises(BadVectors, match="NaN"):
        SteeringVectors(two * torch.nan, ("a", "b"), torch.ones(2))
    vectors = SteeringVectors(
        two * torch.tensor([[0.0], [1.0]]), ("a", "b"), torch.tensor([1.0, 0])
    )
    with pytest.raises(BadVectors, match="the vector at 'a' is zero"):
        vectors.displacement("a", 1)
    with pytest.raises(BadVectors, match="residual norm at 'b' is not known"):
        vectors.displacement("b", 1)
    with pytest.raises(BadVectors, match="no vector for hook 'c'; there are a, b"):
        vectors.unit("c")
    assert vectors.about == About()
