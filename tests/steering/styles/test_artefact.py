"""What is saved is what was trained: loaded here, and by sentence-transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from sentence_transformers import SentenceTransformer

from steering.styles import load
from steering.styles.card import card_of
from steering.styles.encoders import EncoderSpec
from steering.styles.errors import BadStyleData
from steering.styles.fine_tuning import TextTraining, Tuning
from steering.styles.head import Head
from steering.styles.lora import Lora
from steering.styles.model import StyleModel, save
from steering.styles.text_encoder import TextEncoder, load_encoder
from steering.styles.training import Recipe
from tests.steering.styles.tiny_encoders import WIDTH, build_encoder, styled_texts

TEXTS = ["w1 w2 w3", "w40", "w9 w8 " * 40, "w5 w6 w7 w8 w9 w10 w11"]


def trained(spec: EncoderSpec, normalize: bool) -> tuple[TextEncoder, Head, torch.Tensor]:
    """An encoder, tuned if it is to be, with its head and the shift of its features."""
    generator = torch.Generator().manual_seed(0)
    mean_D = torch.randn(WIDTH, generator=generator)
    encoder = load_encoder(spec, device="cpu")
    if spec.tune == "frozen":
        return encoder, Head((WIDTH, 12, 5), normalize=normalize, seed=0), mean_D
    texts, groups = styled_texts(8)
    group_N = torch.tensor([int(group[1:]) for group in groups])
    recipe = Recipe(loss="triplet", hidden=(12,), d_out=5, batch=8, normalize=normalize)
    tuning = Tuning(spec.tune, 1e-2, Lora(r=2))
    training = TextTraining(
        recipe, tuning, encoder, texts, group_N, mean_D, torch.full((WIDTH,), 2)
    )
    for _ in range(3):
        training.step()
    return training.encoder, training.head, mean_D


def saved(folder: Path, spec: EncoderSpec, normalize: bool = True) -> torch.Tensor:
    """Write an artefact; returns the embeddings of TEXTS."""
    encoder, head, mean_D = trained(spec, normalize)
    config = {"encoder": spec.model_dump(mode="json")}
    points, deviation_D = torch.eye(3, 5), torch.full((WIDTH,), 2.0)
    names = ("a", "b", "c")
    model = StyleModel(head, names, points, "cosine", mean_D, deviation_D, config, encoder)
    folder.mkdir()
    save(folder, model)
    return model.embed_texts(TEXTS)


CASES: dict[str, dict[str, Any]] = {
    "frozen": {"max_tokens": 20},
    "copied": {"copy_encoder": True, "pooling": "cls"},
    "whole": {"tune": "whole", "pooling": "max", "prefix": "w2 "},
    "lora": {"tune": "lora", "max_tokens": 30},
}


@pytest.mark.parametrize(
    ("case", "family"),
    [("frozen", "bert"), ("copied", "roberta"), ("whole", "bert"), ("lora", "modernbert"),
     ("frozen", "gpt2"), ("lora", "llama")],
)  # fmt: skip
def test_both_ways_of_loading_give_what_was_trained(case: str, family: str, tmp_path: Path) -> None:
    base = build_encoder(tmp_path / "base", family)
    settings = CASES[case] | ({"pooling": "last"} if family in ("gpt2", "llama") else {})
    spec = EncoderSpec(hf=str(base), **settings)
    expected = saved(tmp_path / "artefact", spec, normalize=case != "frozen")
    model = load(tmp_path / "artefact")
    torch.testing.assert_close(model.embed_texts(TEXTS), expected, atol=1e-5, rtol=1e-5)
    theirs = SentenceTransformer(str(tmp_path / "artefact" / "sentence_transformers"), device="cpu")
    found = theirs.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert set(model.nearest_group_of_texts(TEXTS)) <= {"a", "b", "c"}
    weights = list((tmp_path / "artefact").rglob("model.safetensors"))
    holds_encoder = any(path.parent.name == "sentence_transformers" for path in weights)
    assert holds_encoder == (case in ("copied", "whole"))


def test_a_folder_that_needs_nothing_else(tmp_path: Path) -> None:
    spec = EncoderSpec(hf=str(build_encoder(tmp_path / "base")), tune="lora")
    expected = saved(tmp_path / "artefact", spec)
    model = load(tmp_path / "artefact")
    model.write_sentence_transformer(tmp_path / "alone")
    (tmp_path / "base").rename(tmp_path / "gone")
    theirs = SentenceTransformer(str(tmp_path / "alone"), device="cpu")
    found = theirs.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(BadStyleData, match="is not empty"):
        model.write_sentence_transformer(tmp_path / "alone")
    again = load(tmp_path / "artefact")
    with pytest.raises(BadStyleData, match="cannot be loaded"):
        again.embed_texts(TEXTS)


def test_a_sentence_transformers_model_is_an_encoder_as_it_says(tmp_path: Path) -> None:
    """Pooling and scaling to length one are its own."""
    base = build_encoder(tmp_path / "base")
    saved(tmp_path / "artefact", EncoderSpec(hf=str(base), copy_encoder=True))
    folder = tmp_path / "artefact" / "sentence_transformers"
    modules = json.loads((folder / "modules.json").read_text())
    kept = [m for m in modules if m["type"].endswith(("Transformer", "Pooling", "Normalize"))]
    (folder / "modules.json").write_text(json.dumps(kept))
    encoder = load_encoder(EncoderSpec(sentence_transformer=str(folder)), device="cpu")
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, atol=1e-5)
    assert np.allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)


def of_features(folder: Path) -> StyleModel:
    head = Head((6, 4), normalize=False, seed=0)
    config = {"encoder": {"features": True}, "catalogue_sha256": "abc"}
    points = torch.eye(2, 4)
    model = StyleModel(
        head, ("a", "b|c"), points, "euclidean", torch.zeros(6), torch.ones(6), config
    )
    folder.mkdir()
    save(folder, model)
    return load(folder)


def test_an_embedding_of_given_vectors_reads_no_texts_and_says_so(tmp_path: Path) -> None:
    model = of_features(tmp_path / "artefact")
    assert model.embed(np.ones((3, 6))).shape == (3, 4)
    assert not (tmp_path / "artefact" / "sentence_transformers").exists()
    with pytest.raises(BadStyleData, match="trained on given vectors and reads no texts"):
        model.embed_texts(["w1"])
    assert model.embed_texts([]).shape == (0, 4)


def test_the_card_says_what_it_is_in_a_header_that_parses(tmp_path: Path) -> None:
    model = of_features(tmp_path / "artefact")
    shares = {
        "groups": ["a", "b|c"],
        "parents": ["a", "b|c"],
        "macro_accuracy": 0.75,
        "intervals": {"macro_accuracy": [0.5, 0.9]},
        "accuracy_by_corpus": {"x": 0.7},
        "accuracy_by_group": {"a": 1.0, "b|c": 0.5},
        "rows_by_group": {"a": 3, "b|c": 4},
    }
    model.config |= {
        "report": shares,
        "metrics": {"test_macro_accuracy": 0.75},
        "data": {"files": "rows: 1.jsonl", "item": "question"},
        "recipe": {"loss": "triplet", "margin": 0.5, "temperature": 0.1},
    }
    text = card_of(model)
    header = YAML(typ="safe").load(text.split("---\n")[1])
    result = header["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "rows: 1.jsonl"
    assert result["metrics"][0]["value"] == 0.75
    for said in (
        "0.750 [0.500, 0.900]",
        "loss triplet, margin 0.5",
        "| b\\|c | 4 | 0.500 |",
        "`abc`",
        "whole items of column `question`",
        "model.embed(vectors)",
    ):
        assert said in text, said
    assert "temperature" not in text
