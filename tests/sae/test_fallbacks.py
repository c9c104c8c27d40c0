"""What a machine cannot do is left out with one line, and the numbers are those without it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sae.language_model import LanguageModel
from sae.stream import ActivationStream
from sae.stream_spec import DataSpec, ModelSpec, StreamSpec
from tests.sae.tiny_model import BLOCK_LIST, TEXT, build_tiny_model

HOOK = f"{BLOCK_LIST['llama']}.1"
TOKENS_CT = torch.arange(2, 42).reshape(2, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


def load(folder: Path, **more: Any) -> LanguageModel:
    return LanguageModel.load(ModelSpec(name=str(folder), **more), "cpu")


def stream_spec(folder: Path, **model: Any) -> StreamSpec:
    text = folder / "text.txt"
    text.write_text(TEXT * 60)
    return StreamSpec(
        model=ModelSpec(name=str(folder), **model),
        data=DataSpec(files=str(text), context=16),
        hooks=(HOOK,),
        batch_tokens=64,
        held_out_tokens=64,
        lm_batch_contexts=4,
        device="cpu",
    )


TRY_A_BATCH = """
import json, logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
from sae.stream import ActivationStream
from sae.stream_spec import StreamSpec
stream = ActivationStream(StreamSpec.model_validate_json(sys.argv[1]))
batches = [stream.batch_at(position) for position in (0, 1)]
record = stream.record()
print(json.dumps([[t.tolist() for b in batches for t in b.values()], record["model"],
                  record["fallbacks"]]))
"""


@pytest.mark.slow
def test_without_a_compiler_the_run_goes_on_and_says_so_once(folder: Path, tmp_path: Path) -> None:
    spec = stream_spec(folder, compile=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX")}
    done = subprocess.run(
        [sys.executable, "-c", TRY_A_BATCH, spec.model_dump_json()],
        env={**environment, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    batches, model, fallbacks = json.loads(done.stdout)
    assert fallbacks == ["model.compile: off, there is no C++ compiler (looked for $CXX, g++)"]
    assert done.stderr.count("model.compile: off") == 1
    assert model["compiled"] is False
    plain = ActivationStream(stream_spec(folder))
    expected = [plain.batch_at(position)[HOOK].tolist() for position in (0, 1)]
    assert batches == expected


def test_a_compiler_that_fails_at_the_first_batch_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    compiler = tmp_path / "broken-g++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(compiler),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with caplog.at_level(logging.WARNING):
        stream = ActivationStream(stream_spec(folder, compile=True))
        batch = stream.batch_at(0)[HOOK]
    said = [record.message for record in caplog.records if "model.compile" in record.message]
    assert len(said) == 1
    assert said[0].startswith("model.compile: off, ")
    record = stream.record()
    assert record["fallbacks"] == said
    assert record["model"]["compiled"] is False
    assert torch.equal(batch, ActivationStream(stream_spec(folder)).batch_at(0)[HOOK])


def test_a_python_that_is_too_new_for_compiling_is_no_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise RuntimeError("torch.compile is not supported on Python 3.99")

    monkeypatch.setattr(torch, "compile", refuses)
    monkeypatch.setattr("sae.language_model.cannot_compile", lambda _: "")
    model = load(folder, compile=True)
    assert not model.is_compiled
    assert "Python 3.99" in model.fallbacks[0]
    assert torch.equal(
        model.activations(TOKENS_CT, [HOOK])[HOOK],
        load(folder).activations(TOKENS_CT, [HOOK])[HOOK],
    )


def test_out_of_memory_is_no_reason_to_leave_compiling_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward: forward)
    monkeypatch.setattr("sae.language_model.cannot_compile", lambda _: "")
    model = load(folder, compile=True)

    def runs_out(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        model.logits(TOKENS_CT, {HOOK: runs_out})
    assert model.is_compiled


def test_flash_on_a_cpu_becomes_sdpa_with_a_line(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        stream = ActivationStream(stream_spec(folder, attention="flash"))
    line = "model.attention: sdpa instead of flash: flash-attn needs a CUDA device, and this is cpu"
    assert [r.message for r in caplog.records if "model.attention" in r.message] == [line]
    assert stream.record()["fallbacks"] == [line]
    assert stream.record()["model"]["attention"] == "sdpa"
    plain = ActivationStream(stream_spec(folder))
    assert torch.equal(stream.batch_at(0)[HOOK], plain.batch_at(0)[HOOK])


def test_sdpa_makes_way_for_eager_where_scores_are_soft_capped(tmp_path: Path) -> None:
    gemma = build_tiny_model(tmp_path / "gemma2", "gemma2")
    for asked in ("sdpa", "flash"):
        model = load(gemma, attention=asked)
        assert model.attention == "eager"
        assert model.fallbacks[0].startswith(f"model.attention: eager instead of {asked}: ")
    assert load(gemma).fallbacks == ()


def test_eager_is_what_was_asked_for(folder: Path) -> None:
    model = load(folder, attention="eager")
    assert model.attention == "eager"
    assert model.fallbacks == ()


def test_flash_that_fails_in_its_first_pass_makes_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise RuntimeError("FlashAttention only supports head dimension at most 256. More words")

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", refuses)
    model = load(folder)
    model.model.config._attn_implementation_internal = "flash_attention_2"
    expected = load(folder).activations(TOKENS_CT, [HOOK])[HOOK]
    assert torch.equal(model.activations(TOKENS_CT, [HOOK])[HOOK], expected)
    assert model.attention == "sdpa"
    assert model.fallbacks == (
        "model.attention: sdpa instead of flash: "
        "FlashAttention only supports head dimension at most 256",
    )


def test_a_choice_of_attention_is_part_of_what_the_stream_is(folder: Path) -> None:
    plain = stream_spec(folder)
    assert plain.key == stream_spec(folder, attention="auto").key
    keys = {stream_spec(folder, attention=one).key for one in ("auto", "flash", "sdpa", "eager")}
    assert len(keys) == 4
