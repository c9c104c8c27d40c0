"""An encoder says the same of a text whatever is beside it; what it cannot read is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from steering.styles.encoder_files import encoder_files
from steering.styles.encoder_memory import encoder_bytes, encoder_shape
from steering.styles.encoders import EncoderSpec, features_of
from steering.styles.errors import BadStyleData
from steering.styles.rows import Rows
from steering.styles.text_encoder import load_encoder, pool
from tests.steering.styles.tiny_encoders import FAMILIES, LAYERS, WIDTH, build_encoder, styled_texts

POOLINGS = ("mean", "cls", "last", "max")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_sees_a_text_s_own_tokens_on_either_side(pooling: Any, side: str) -> None:
    generator = torch.Generator().manual_seed(0)
    own = [torch.randn(length, 5, generator=generator) for length in (1, 3, 6)]
    hidden_NTD = torch.full((3, 6, 5), 1e9)
    mask_NT = torch.zeros(3, 6, dtype=torch.long)
    for row, tokens_TD in enumerate(own):
        place = slice(6 - len(tokens_TD), 6) if side == "left" else slice(0, len(tokens_TD))
        hidden_NTD[row, place], mask_NT[row, place] = tokens_TD, 1
    expected = {
        "mean": [tokens.mean(0) for tokens in own],
        "cls": [tokens[0] for tokens in own],
        "last": [tokens[-1] for tokens in own],
        "max": [tokens.amax(0) for tokens in own],
    }
    torch.testing.assert_close(pool(hidden_NTD, mask_NT, pooling), torch.stack(expected[pooling]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_s_features_do_not_depend_on_its_neighbours(family: str, tmp_path: Path) -> None:
    folder = build_encoder(tmp_path, family)
    texts = styled_texts(4)[0]
    for pooling in ("mean", "last"):
        spec = EncoderSpec(hf=str(folder), pooling=pooling, max_tokens=40)
        encoder = load_encoder(spec, device="cpu")
        together = encoder.encode(texts)
        alone = np.concatenate([encoder.encode([text]) for text in texts])
        assert together.shape == (len(texts), WIDTH)
        np.testing.assert_allclose(together, alone, atol=2e-5)
        assert np.abs(together[0] - together[1]).max() > 1e-3


def test_long_texts_are_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = EncoderSpec(hf=str(build_encoder(tmp_path)), max_tokens=8)
    encoder = load_encoder(spec, device="cpu")
    with caplog.at_level(logging.WARNING):
        long, short = encoder.encode(["w1 " * 50, "w1 " * 6])
    np.testing.assert_allclose(long, short, atol=1e-6)
    assert "1 of 2 texts are longer than 8 tokens and were cut" in caplog.text


def test_a_model_s_own_length_counts_where_positions_begin_late(tmp_path: Path) -> None:
    spec = EncoderSpec(hf=str(build_encoder(tmp_path, "roberta")), max_tokens=500)
    encoder = load_encoder(spec, device="cpu")
    assert encoder.max_tokens == 63  # 64 positions, the first is the padding's
    assert np.isfinite(encoder.encode(["w1 " * 300])).all()


def test_passes_become_smaller_when_memory_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(EncoderSpec(hf=str(build_encoder(tmp_path))), device="cpu")
    texts = styled_texts(4)[0]
    expected = encoder.encode(texts)
    forward = encoder.model.forward

    def small(input_ids: torch.Tensor, **others: Any) -> Any:
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(input_ids=input_ids, **others)

    monkeypatch.setattr(encoder.model, "forward", small)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert encoder.batch_tokens < 8192


def test_a_prefix_is_read_with_each_text(tmp_path: Path) -> None:
    folder = str(build_encoder(tmp_path))
    plain = load_encoder(EncoderSpec(hf=folder), device="cpu")
    prefixed = load_encoder(EncoderSpec(hf=folder, prefix="w1 w2 "), device="cpu")
    np.testing.assert_allclose(prefixed.encode(["w5"]), plain.encode(["w1 w2 w5"]), atol=1e-6)


def test_attention_falls_back_with_a_line(tmp_path: Path) -> None:
    folder = str(build_encoder(tmp_path, "deberta-v2"))
    encoder = load_encoder(EncoderSpec(hf=folder, attention="flash"), device="cpu")
    assert len(encoder.fallbacks) == 1
    assert "eager instead of flash" in encoder.fallbacks[0]
    assert np.isfinite(encoder.encode(["w1 w2"])).all()


def test_features_are_kept_until_the_encoder_changes(tmp_path: Path) -> None:
    folder = build_encoder(tmp_path / "model")
    texts, groups = styled_texts(2)
    rows = Rows(groups=groups, items=groups, texts=texts)
    spec = EncoderSpec(hf=str(folder))
    first = features_of(spec, rows, tmp_path / "cache")
    assert (features_of(spec, rows, tmp_path / "cache") == first).all()
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    build_encoder(folder, dropout=0.1)
    features_of(spec, rows, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadStyleData, match=r"cannot be loaded: .*name a folder that holds one"):
        load_encoder(EncoderSpec(hf=str(tmp_path / "empty")))


def test_modules_that_are_not_read_are_refused(tmp_path: Path) -> None:
    names = ["Transformer", "Pooling", "Dense"]
    modules = [
        {"path": f"{n}", "type": f"sentence_transformers.models.{name}"}
        for n, name in enumerate(names)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text(json.dumps({"pooling_mode": "lasttoken"}))
    with pytest.raises(BadStyleData, match="module Dense, which is not read"):
        encoder_files(EncoderSpec(sentence_transformer=str(tmp_path)))
    (tmp_path / "modules.json").write_text(json.dumps(modules[:2]))
    other = tmp_path.parent / f"{tmp_path.name}-again"
    tmp_path.rename(other)
    assert encoder_files(EncoderSpec(sentence_transformer=str(other))).pooling == "last"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": True, "tune": "lora"}, "nothing to tune"),
        ({"hf": "x", "tune": "whole", "dtype": "bfloat16"}, "loses steps below its precision"),
        ({"hf": "x", "builtin": "minilm"}, "exactly one of"),
    ],
)
def test_encoders_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EncoderSpec.model_validate(given)


def test_memory_follows_from_files_and_grows_with_what_is_trained(tmp_path: Path) -> None:
    folder = build_encoder(tmp_path)
    shape = encoder_shape(str(folder))
    model = load_encoder(EncoderSpec(hf=str(folder)), device="cpu").model
    assert (shape.width, shape.num_layers) == (WIDTH, LAYERS)
    assert shape.num_parameters == pytest.approx(model.num_parameters(), rel=0.2)
    assert encoder_shape("microsoft/deberta-v3-base").num_parameters == 184_000_000
    assert encoder_shape("intfloat/e5-mistral-7b-instruct").num_parameters == 7_000_000_000
    specs = [
        EncoderSpec(hf="intfloat/e5-mistral-7b-instruct", tune=tune)
        for tune in ("frozen", "lora", "whole")
    ]
    frozen, lora, whole = (encoder_bytes(spec).trial_bytes for spec in specs)
    assert frozen == 0 < lora < whole
    spared = specs[2].model_copy(update={"gradient_checkpointing": True})
    assert encoder_bytes(spared).trial_bytes < whole
    assert encoder_bytes(EncoderSpec(features=True)).once_bytes == 0
