"""Compiled blocks give the same activations, and hooks inside them still work."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from tests.sae.tiny_model import BLOCK_LIST, build_tiny_model

BLOCKS = BLOCK_LIST["llama"]
TOKENS_CT = torch.arange(2, 42).reshape(2, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def num_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often something compiled ran; compiling itself is left out, it takes a minute."""
    runs: list[int] = []

    def compile_nothing(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            runs.append(1)
            return forward(*args, **kwargs)

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return runs


def load(folder: Path, **more: Any) -> LanguageModel:
    return LanguageModel.load(ModelSpec(name=str(folder), **more), "cpu")


def test_blocks_up_to_the_deepest_hook_run_compiled(folder: Path, num_runs: list[int]) -> None:
    plain, compiled = load(folder), load(folder, compile=True)
    hooks = [f"{BLOCKS}.0", f"{BLOCKS}.1"]
    expected = plain.activations(TOKENS_CT, hooks)
    found = compiled.activations(TOKENS_CT, hooks)
    assert len(num_runs) == 2
    assert all(torch.equal(found[hook], expected[hook]) for hook in hooks)


def test_a_block_that_is_hooked_inside_is_put_back(folder: Path, num_runs: list[int]) -> None:
    plain, compiled = load(folder), load(folder, compile=True)
    hooks = [f"{BLOCKS}.1.mlp", f"{BLOCKS}.2"]
    expected = plain.activations(TOKENS_CT, hooks)
    found = compiled.activations(TOKENS_CT, hooks)
    assert all(torch.equal(found[hook], expected[hook]) for hook in hooks)
    assert len(num_runs) == 2  # blocks 0 and 2
    edit = {f"{BLOCKS}.1": torch.zeros_like}
    assert torch.equal(compiled.logits(TOKENS_CT, edit), plain.logits(TOKENS_CT, edit))


def test_nothing_is_compiled_unless_asked(folder: Path, num_runs: list[int]) -> None:
    load(folder).activations(TOKENS_CT, [f"{BLOCKS}.1"])
    assert not num_runs


def test_attention_is_sdpa(folder: Path) -> None:
    assert load(folder).attention == "sdpa"


@pytest.mark.slow
def test_really_compiled_activations_are_close(folder: Path) -> None:
    hooks = [f"{BLOCKS}.1"]
    expected = load(folder).activations(TOKENS_CT, hooks)
    compiled = load(folder, compile=True)
    for tokens_CT in (TOKENS_CT, TOKENS_CT[:1]):
        found = compiled.activations(tokens_CT, hooks)
        torch.testing.assert_close(found[hooks[0]], expected[hooks[0]][: len(tokens_CT)])
