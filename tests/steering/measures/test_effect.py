"""Effect: what measures it tells the sides apart, or is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from steering.errors import BadSteeringInput
from steering.measures import EffectSpec, open_effect, relevance
from steering.measures.effects.contrast_classifier import fit_contrast_classifier
from steering.measures.effects.embedding_margin import open_embedding_margin
from steering.measures.effects.group_classifier import fit_group_classifier
from steering.styles.head import Head
from steering.styles.model import StyleModel, save
from steering.styles.rows import Rows

FORMAL = "We would kindly request that you submit the required documentation at once."
CASUAL = "hey dude, gonna grab some grub, wanna come along?"


def test_a_classifier_of_contrast_texts_tells_new_texts_apart() -> None:
    meter = open_effect(EffectSpec.model_validate({"contrast": {"builtin": "formal"}}))
    formal, casual, empty = meter.score([FORMAL, CASUAL, " "])
    assert formal > 0.6
    assert casual < 0.4
    assert empty == 0.0
    assert meter.record["validation_auroc"] > 0.9


def test_sides_that_cannot_be_told_apart_measure_nothing() -> None:
    texts = [f"The {animal} slept." for animal in ("cat", "dog", "hen", "cow", "pig", "fox")]
    with pytest.raises(BadSteeringInput, match=r"cannot be told apart.*AUROC 0\.\d+"):
        fit_contrast_classifier((texts[:3], texts[3:]), (texts, texts))


def test_exactly_one_measure_with_its_part() -> None:
    with pytest.raises(ValidationError, match="exactly one of contrast, embedding, classifier"):
        EffectSpec()
    with pytest.raises(ValidationError, match="embedding and group go together"):
        EffectSpec(embedding="folder")


def style_model(folder: Path, between: str | None = None) -> Path:
    """MiniLM's own space with the two texts' embeddings as the places of the groups.

    Args:
        between: a third group, halfway.
    """
    from steering.measures.sentences import sentence_features

    point_GE = torch.from_numpy(sentence_features([FORMAL, CASUAL]))
    width = point_GE.shape[1]
    head = Head((width, width), normalize=False, seed=0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.eye(width) if parameter.ndim == 2 else torch.zeros(width))
    config = {"encoder": {"builtin": "minilm"}}
    zeros, ones = torch.zeros(width), torch.ones(width)
    folder.mkdir()
    groups: tuple[str, ...] = ("official", "friend")
    if between is not None:
        groups, point_GE = (*groups, between), torch.cat([point_GE, point_GE.mean(0, keepdim=True)])
    save(folder, StyleModel(head, groups, point_GE, "euclidean", zeros, ones, config))
    return folder


def test_the_margin_of_an_embedding_is_above_a_half_where_the_group_is_nearest(
    tmp_path: Path,
) -> None:
    folder = style_model(tmp_path / "embedding")
    meter = open_effect(EffectSpec(embedding=str(folder), group="official"))
    own, other, empty = meter.score([FORMAL, CASUAL, ""])
    assert own == pytest.approx(1.0, abs=1e-3)
    assert other == pytest.approx(0.0, abs=1e-3)
    assert empty == 0.0
    with pytest.raises(BadSteeringInput, match="'oficial' is unknown.*Did you mean 'official'"):
        open_effect(EffectSpec(embedding=str(folder), group="oficial"))


def test_the_margin_is_to_the_nearest_of_the_groups_that_take_part(tmp_path: Path) -> None:
    folder = str(style_model(tmp_path / "embedding", between="colleague"))
    text = [CASUAL]
    near = open_embedding_margin(folder, "friend").score(text)
    assert near == pytest.approx(1.0, abs=1e-3)
    halfway = open_embedding_margin(folder, "official").score(text)
    assert halfway == pytest.approx(0.0, abs=1e-3)
    without = open_embedding_margin(folder, "official", among=["official", "colleague"])
    assert 0.2 < without.score(text)[0] < 0.5
    assert without.record["others"] == ["colleague"]
    other = open_embedding_margin(str(style_model(tmp_path / "other")), "official")
    assert other.record["centroids_sha256"] != without.record["centroids_sha256"]
    with pytest.raises(BadSteeringInput, match="'nobody' is unknown"):
        open_embedding_margin(folder, "official", among=["official", "nobody"])


def test_a_group_is_told_from_all_others_by_its_texts() -> None:
    kinds = {
        "miller": "The miller ground the {} grain between his stones.",
        "sailor": "We hoisted the {} sail and left the harbour.",
        "child": "Mummy, I want the {} balloon, please!",
    }
    words = ("red", "blue", "green", "old", "new", "wet", "dry", "big")
    table = [(group, text.format(word)) for group, text in kinds.items() for word in words]
    rows = Rows(
        groups=[group for group, _ in table],
        items=[str(number) for number in range(len(table))],
        texts=[text for _, text in table],
    )
    meter = fit_group_classifier(rows, "sailor", tuple(kinds), texts_per_group=8)
    own, other, empty = meter.score(["The ship sailed out to sea.", kinds["child"], ""])
    assert own > 0.5 > other
    assert empty == 0.0
    assert meter.record["group"] == "sailor"
    assert meter.record["num_train"] == 18  # a quarter of the items is held out
    assert meter.record["validation_auroc"] > 0.9
    alike = replace(rows, texts=[f"The {words[n % 8]} cat slept." for n in range(len(table))])
    with pytest.raises(BadSteeringInput, match=r"texts of 'sailor' and of the other .*AUROC 0\."):
        fit_group_classifier(alike, "sailor", tuple(kinds), texts_per_group=8)
    with pytest.raises(BadSteeringInput, match="has vectors and no texts"):
        fit_group_classifier(replace(rows, texts=None), "sailor", tuple(kinds), texts_per_group=8)


def test_a_classifier_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    spec = EffectSpec(classifier=str(tmp_path / "nothing"), label="joy")
    with pytest.raises(BadSteeringInput, match="cannot be loaded.*name a folder or hub id"):
        open_effect(spec)


def test_any_sequence_classifier_gives_the_probability_of_a_label(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    from tests.sae.tiny_model import build_tiny_model

    folder = build_tiny_model(tmp_path / "classifier")
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "joy", 1: "anger"},
        pad_token_id=1,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    joy = open_effect(EffectSpec(classifier=str(folder), label="joy"))
    anger = open_effect(EffectSpec(classifier=str(folder), label="anger"))
    texts = ["The river ran", "A measure of grain was weighed in the morning"]
    np.testing.assert_allclose(joy.score(texts) + anger.score(texts), 1.0, atol=1e-6)
    with pytest.raises(BadSteeringInput, match="label 'angr' is unknown.*Did you mean 'anger'"):
        open_effect(EffectSpec(classifier=str(folder), label="angr"))


def test_an_answer_to_the_point_is_nearer_than_one_that_is_not() -> None:
    prompt = "How can I fall asleep more easily?"
    near, far, empty = relevance(
        ["Go to bed at the same time and dim the lights.", "The stock market fell on Monday.", ""],
        [prompt] * 3,
    )
    assert near > far + 0.1
    assert empty == 0.0
    with pytest.raises(BadSteeringInput, match="must be pairs; got 1 and 2"):
        relevance(["a"], ["b", "c"])
