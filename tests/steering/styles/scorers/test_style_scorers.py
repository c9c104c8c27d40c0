"""Every source of scores answers within 0 and 1, and says what it cannot answer and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from steering.styles.errors import BadStyleData
from steering.styles.scorers import ScorerSpec, SfamSpec, score_attributes
from tests.steering.styles.scorers.pair_scorers import build_pair_scorer

TEXTS = ["The river ran past the mill.", "A measure of grain!", "Nobody knew why, but all agreed."]
ATTRIBUTES = ["The author uses passive voice.", "The author is formal."]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    catalogue = {
        "name": "two",
        "version": "1",
        "dimension": 2,
        "attributes": [
            {"id": "passive", "text": ATTRIBUTES[0]},
            {"id": "formal", "text": ATTRIBUTES[1]},
        ],
    }
    (tmp_path / "catalogue.json").write_text(json.dumps(catalogue))
    rows = [{"text": text, "style": [0.25 * n, 1 - 0.25 * n]} for n, text in enumerate(TEXTS)]
    rows.append({"text": TEXTS[0], "style": [1.0, 1.0]})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "files": str(tmp_path / "rows.jsonl"),
        "vector": "style",
        "catalogue": str(tmp_path / "catalogue.json"),
    }


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "exactly one of given, sfam, regressor, builtin; got none"),
        ({"builtin": "minilm", "regressor": "x"}, "got regressor and builtin"),
        ({"sfam": {"model": "x", "head": "two_logits"}}, "needs yes: 0 or 1"),
        ({"sfam": {"model": "x", "head": "one_logit", "yes": 1}}, "head is one_logit"),
    ],
)
def test_a_spec_names_one_source_and_what_its_head_means(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ScorerSpec.model_validate(fields)


def test_sentences_on_one_subject_score_higher_than_others(tmp_path: Path) -> None:
    texts = ["The cat sat on the sofa and purred.", "Interest rates rose again in the spring."]
    attributes = ["The author writes about cats.", "The author writes about money."]
    scores = score_attributes(ScorerSpec(builtin="minilm"), texts, attributes, tmp_path)
    assert scores.shape == (2, 2)
    assert scores.dtype == np.float32
    assert scores.min() >= 0 and scores.max() <= 1
    assert scores[0, 0] > scores[0, 1] and scores[1, 1] > scores[1, 0]


def test_given_scores_are_looked_up_by_text_and_by_id_or_text_of_an_attribute(
    given: dict[str, Any], tmp_path: Path
) -> None:
    spec = ScorerSpec.model_validate({"given": given})
    scores = score_attributes(spec, TEXTS, ["formal", ATTRIBUTES[0].upper()], tmp_path)
    assert scores.tolist() == [[1.0, 0.5], [0.75, 0.25], [0.5, 0.5]]  # the first has two rows


def test_given_scores_say_what_they_lack(given: dict[str, Any], tmp_path: Path) -> None:
    spec = ScorerSpec.model_validate({"given": given})
    with pytest.raises(BadStyleData, match="1 of 1 texts have no given scores.*'unseen'"):
        score_attributes(spec, ["unseen"], ["formal"], tmp_path)
    with pytest.raises(BadStyleData, match="does not know 'formall'; the nearest it has is 'form"):
        score_attributes(spec, TEXTS, ["formall"], tmp_path)
    Path(given["files"]).write_text(json.dumps({"text": "a", "style": [0.5, 1.5]}) + "\n")
    with pytest.raises(BadStyleData, match=r"within 0 and 1; row 1 has 1\.5"):
        score_attributes(spec, ["a"], ["formal"], tmp_path)


def test_nothing_to_score_is_said(tmp_path: Path) -> None:
    spec = ScorerSpec(builtin="minilm")
    with pytest.raises(BadStyleData, match="no attributes"):
        score_attributes(spec, TEXTS, [], tmp_path)
    with pytest.raises(BadStyleData, match="text 1 is empty"):
        score_attributes(spec, ["a", " "], ATTRIBUTES, tmp_path)
    assert score_attributes(spec, [], ATTRIBUTES, tmp_path).shape == (0, 2)


@pytest.mark.parametrize("head", ["one_logit", "two_logits"])
def test_a_pair_scorer_gives_what_transformers_gives_pair_by_pair(
    head: str, tmp_path: Path
) -> None:
    folder = build_pair_scorer(tmp_path / "model", 1 if head == "one_logit" else 2)
    fields = {"model": str(folder), "head": head, "yes": None if head == "one_logit" else 0}
    spec = ScorerSpec.model_validate({"sfam": fields})
    scores = score_attributes(spec, TEXTS, ATTRIBUTES, tmp_path / "cache")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for row, text in enumerate(TEXTS):
        for place, attribute in enumerate(ATTRIBUTES):
            pair = tokenizer(text, attribute, return_tensors="pt")
            with torch.no_grad():
                logit_K = model(**pair).logits[0]
            wanted = torch.sigmoid(logit_K[0]) if head == "one_logit" else logit_K.softmax(-1)[0]
            assert scores[row, place] == pytest.approx(float(wanted), abs=1e-5)
    assert scores.std() > 1e-4


def test_the_other_logit_is_the_opposite(tmp_path: Path) -> None:
    folder = build_pair_scorer(tmp_path / "model", 2)
    both = [
        score_attributes(
            ScorerSpec(sfam=SfamSpec(model=str(folder), head="two_logits", yes=yes)),
            TEXTS,
            ATTRIBUTES,
            tmp_path / "cache",
        )
        for yes in (0, 1)
    ]
    np.testing.assert_allclose(both[0] + both[1], 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("num_labels", "head", "way_out"),
    [
        (2, "one_logit", "write head: two_logits and yes: 0 or 1"),
        (1, "two_logits", "write head: one_logit"),
        (3, "one_logit", "tells something else"),
    ],
)
def test_a_checkpoint_with_another_head_than_was_said_is_refused(
    num_labels: int, head: str, way_out: str, tmp_path: Path
) -> None:
    folder = build_pair_scorer(tmp_path / "model", num_labels)
    fields = {"model": str(folder), "head": head, "yes": 1 if head == "two_logits" else None}
    spec = ScorerSpec.model_validate({"sfam": fields})
    with pytest.raises(BadStyleData, match=f"num_labels={num_labels} .*{way_out}"):
        score_attributes(spec, TEXTS, ATTRIBUTES, tmp_path / "cache")


def test_a_model_without_a_trained_head_does_not_score_at_random(tmp_path: Path) -> None:
    folder = build_pair_scorer(tmp_path / "model", 2, has_head=False)
    spec = ScorerSpec(sfam=SfamSpec(model=str(folder), head="two_logits", yes=1))
    with pytest.raises(BadStyleData, match=r"no trained head: classifier\.bias"):
        score_attributes(spec, TEXTS, ATTRIBUTES, tmp_path / "cache")
    with pytest.raises(BadStyleData, match="cannot be loaded"):
        missing = SfamSpec(model=str(tmp_path / "nowhere"), head="one_logit")
        score_attributes(ScorerSpec(sfam=missing), TEXTS, ATTRIBUTES, tmp_path / "cache")


def test_what_was_scored_is_not_scored_again_unless_the_weights_changed(tmp_path: Path) -> None:
    folder, cache = build_pair_scorer(tmp_path / "model", 1), tmp_path / "cache"
    spec = ScorerSpec(sfam=SfamSpec(model=str(folder), head="one_logit"))
    first = score_attributes(spec, TEXTS, ATTRIBUTES, cache)
    files = {path: path.stat().st_ino for path in cache.rglob("*.safetensors")}
    assert len(files) == 1
    np.testing.assert_array_equal(score_attributes(spec, TEXTS, ATTRIBUTES, cache), first)
    assert {path: path.stat().st_ino for path in cache.rglob("*.safetensors")} == files
    weights = folder / "model.safetensors"
    other = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.ones_(other.classifier.bias)
    weights.unlink()
    other.save_pretrained(folder)
    assert (score_attributes(spec, TEXTS, ATTRIBUTES, cache) > first).all()
