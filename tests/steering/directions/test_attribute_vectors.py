"""Vectors of attributes: sentences, centring, the artefact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae.language_model import LanguageModel
from steering.directions import addressed, attribute_vectors
from steering.errors import BadSteeringInput
from steering.styles.catalogue import Attribute, Catalogue
from steering.vectors import BadVectors, load_vectors
from steering.vectors_by_attribute import load_attribute_vectors, save_attribute_vectors
from tests.steering.directions.planted_model import cosine, directions, plant, tiny_lm

HOOKS = ["resid_post.0", "resid_post.1"]
MARKS = "+*#%"


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model in which each of `MARKS` has a part of its own, and all have one in common."""
    model = tiny_lm(tmp_path_factory.mktemp("planted"))
    planted = directions(len(MARKS) + 1)
    plant(model, {m: d + 3 * planted[-1] for m, d in zip(MARKS, planted[:-1], strict=True)}, 5)
    return model


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("passive voice", "You use passive voice."),
        ("The author uses passive voice.", "You use passive voice."),
        ("The author avoids slang", "You avoid slang."),
        ("The author often tries to be funny.", "You often try to be funny."),
        ("The author is polite.", "You are polite."),
        ("The author has a rich vocabulary.", "You have a rich vocabulary."),
        ("The author expresses doubt.", "You express doubt."),
        ("The author teaches.", "You teach."),
        ("The author directly addresses their readers.", "You directly address your readers."),
        ("The author's sentences are short.", "Your sentences are short."),
    ],
)
def test_sentences_about_the_author_are_said_to_the_model(attribute: str, sentence: str) -> None:
    assert addressed(attribute) == sentence


def test_what_attributes_have_in_common_is_taken_off(lm: LanguageModel) -> None:
    found = attribute_vectors(lm, list(MARKS), HOOKS, template="{attribute}")
    planted = directions(len(MARKS) + 1)
    own_AD = planted[:-1] - planted[:-1].mean(dim=0)
    for place, mark in enumerate(MARKS):
        vectors = found.of(mark)
        assert cosine(vectors.unit(HOOKS[0]), own_AD[place]) > 0.98
        raw = found.of(mark, centre=False)
        assert cosine(raw.unit(HOOKS[0]), planted[-1]) > 0.9
        assert vectors.about.details["attribute"] == mark
    centred_ALD = torch.stack([found.of(mark).vector_LD for mark in MARKS])
    assert torch.allclose(centred_ALD.sum(dim=0), torch.zeros(2, 32), atol=1e-5)


def test_the_artefact_of_a_catalogue_keeps_its_hash(lm: LanguageModel, tmp_path: Path) -> None:
    catalogue = Catalogue(
        name="tiny",
        version="1",
        dimension=3,
        attributes=tuple(
            Attribute(id=f"a{n}", text=f"The author uses {what}.")
            for n, what in enumerate(("irony", "long sentences in which much is said", "slang"))
        ),
    )
    found = attribute_vectors(lm, catalogue, HOOKS, pooling="mean")
    save_attribute_vectors(tmp_path, found)
    read = load_attribute_vectors(tmp_path)
    assert torch.equal(read.raw_ALD, found.raw_ALD)
    assert read.ids == ("a0", "a1", "a2")
    assert read.sentences[0] == "You use irony."
    assert read.about.catalogue_sha256 == catalogue.sha256
    assert read.sha256 == found.sha256
    read.check_model(lm)
    alone = attribute_vectors(lm, ["slang"], HOOKS, pooling="mean")
    assert torch.allclose(alone.raw_ALD[0], read.raw_ALD[2], atol=1e-6)
    with pytest.raises(BadVectors, match="holds 'attribute_vectors', not 'steering_vectors'"):
        load_vectors(tmp_path)


def test_some_attributes_can_be_taken(lm: LanguageModel) -> None:
    found = attribute_vectors(lm, list(MARKS), HOOKS)
    some = found.only(["#", "+"])
    assert torch.equal(some.raw_ALD, found.raw_ALD[[2, 0]])
    assert some.sentences == ("You use #.", "You use +.")
    with pytest.raises(BadVectors, match="no vectors of 1 attributes: \\?"):
        found.only(["?"])
    with pytest.raises(BadVectors, match="no attribute '\\?' among the 4"):
        found.of("?")


def test_some_hooks_can_be_taken(lm: LanguageModel) -> None:
    found = attribute_vectors(lm, list(MARKS), HOOKS)
    upper = found.at("resid_post.1")
    alone = attribute_vectors(lm, list(MARKS), ["resid_post.1"])
    assert upper.sha256 == alone.sha256
    assert upper.about.norm_hooks == ("resid_post.1",)
    assert found.at(*reversed(HOOKS)).hooks == tuple(reversed(HOOKS))
    with pytest.raises(BadVectors, match=r"hooks mlp_out.0; there are resid_post.0, resid_post.1"):
        found.at("mlp_out.0")


def test_bad_attributes_are_refused(lm: LanguageModel) -> None:
    with pytest.raises(BadSteeringInput, match="come twice: a"):
        attribute_vectors(lm, ["a", "a"], HOOKS)
    with pytest.raises(BadSteeringInput, match="no list of attributes"):
        attribute_vectors(lm, [], HOOKS)
    with pytest.raises(BadSteeringInput, match=r"has no place for it; write {attribute}"):
        attribute_vectors(lm, ["a"], HOOKS, template="You use it.")
    with pytest.raises(BadSteeringInput, match="an attribute is empty"):
        attribute_vectors(lm, [" "], HOOKS)
