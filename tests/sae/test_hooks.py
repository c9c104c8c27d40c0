"""Hook names find their modules, and wrong ones the nearest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae.hooks import (
    UnknownHook,
    check_hook,
    hook_width,
    layer_of,
    resolve_hook,
    split_input,
)
from sae.model_shapes import ModelShape, known_shapes, truncated_flop_per_token
from sae.stream_spec import ModelSpec
from tests.sae.tiny_model import BLOCK_LIST, FAMILIES, Family, build_tiny_model

INSIDE = {
    "gpt2": ("attn", "mlp", "drop"),
    "gpt_neox": ("attention", "mlp", "emb_dropout"),
    "llama": ("self_attn", "mlp", "embed_tokens"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm", "embed_tokens"),
}


def module_names(family: Family, num_layers: int = 3) -> list[str]:
    attn, mlp, embedding = INSIDE[family]
    blocks = [f"{BLOCK_LIST[family]}.{n}" for n in range(num_layers)]
    outer = ["", BLOCK_LIST[family], f"{BLOCK_LIST[family].split('.')[0]}.{embedding}", "lm_head"]
    return outer + [f"{block}{part}" for block in blocks for part in ("", f".{attn}", f".{mlp}")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["blocks.{n}.hook_{what}", "{what}.{n}"])
def test_aliases_find_the_modules_of_each_family(family: Family, form: str) -> None:
    names, blocks = module_names(family), BLOCK_LIST[family]
    attn, mlp, _ = INSIDE[family]
    found = {
        what: resolve_hook(form.format(n=1, what=what), family, names)
        for what in ("resid_pre", "resid_post", "attn_out", "mlp_out")
    }
    assert found == {
        "resid_pre": f"{blocks}.0",
        "resid_post": f"{blocks}.1",
        "attn_out": f"{blocks}.1.{attn}",
        "mlp_out": f"{blocks}.1.{mlp}",
    }


def test_module_paths_are_taken_as_they_are() -> None:
    assert resolve_hook("model.layers.2.mlp", "llama", module_names("llama")) == (
        "model.layers.2.mlp"
    )
    assert resolve_hook("odd.module", "novel", ["odd", "odd.module"]) == "odd.module"


@pytest.mark.parametrize(
    ("hook", "family", "message"),
    [
        ("model.layer.1", "llama", "nearest are model.layers.1"),
        ("transformer.h.1", "llama", "is no module of this model; the nearest are"),
        ("blocks.7.hook_resid_post", "llama", "layer 7; the model has layers 0 to 2"),
        ("resid_pst.1", "llama", "Did you mean hook_resid_post"),
        ("blocks.1.hook_z", "gpt2", "not a known alias; known: blocks.N.hook_resid_pre"),
        ("blocks.1.attn.hook_z", "gpt2", "not a known alias"),
        ("resid_post.1", "novel", "not for novel; give the module path"),
        ("", "llama", "is no module"),
    ],
)
def test_wrong_hooks_are_refused_with_a_way_out(hook: str, family: str, message: str) -> None:
    names = module_names("llama")
    with pytest.raises(UnknownHook, match=message):
        resolve_hook(hook, family, names)


def test_hooks_are_checked_without_the_model() -> None:
    shape = known_shapes(ModelSpec(name="openai-community/gpt2"))
    assert shape is not None
    for good in ("transformer.h.11", "resid_post.11", "blocks.0.hook_resid_pre", "lm_head"):
        check_hook(good, shape)
    for bad in ("transformer.h.12", "resid_post.12", "model.layers.3", "blocks.1.hook_z"):
        with pytest.raises(UnknownHook):
            check_hook(bad, shape)
    check_hook("anything.at.all", None)
    with pytest.raises(UnknownHook, match="Did you mean 'transformer.h.8'"):
        check_hook("transformers.h.8", shape)


def test_layers_and_widths_of_hooks() -> None:
    shape = known_shapes(ModelSpec(builtin="smollm2-135m"))
    assert shape is not None
    assert layer_of("model.layers.10.mlp") == layer_of("mlp_out.10") == 10
    assert layer_of("resid_pre.10") == 9
    assert layer_of("model.embed_tokens") == layer_of("resid_pre.0") == -1
    assert layer_of("model.norm") is None
    assert hook_width("resid_post.3", shape) == hook_width("model.layers.3", shape) == 576
    assert hook_width("model.layers.3.mlp", shape) == 576
    assert hook_width("model.layers.3.mlp.up_proj", shape) is None


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("openai-community/gpt2", 124.4),
        ("gpt2-xl", 1557.6),
        ("EleutherAI/pythia-70m-deduped", 70.4),
        ("EleutherAI/pythia-2.8b", 2775.2),
        ("google/gemma-2-2b-it", 2614.3),
        ("google/gemma-2-9b", 9241.7),
        ("meta-llama/Meta-Llama-3-8B", 8030.3),
        ("meta-llama/Llama-3.1-8B-Instruct", 8030.3),
        ("meta-llama/Llama-3.2-1B", 1235.8),
        ("mistralai/Mistral-7B-v0.1", 7241.7),
        ("Qwen/Qwen2.5-0.5B", 494.0),
        ("Qwen/Qwen2.5-7B-Instruct", 7615.6),
        ("HuggingFaceTB/SmolLM2-135M", 134.5),
    ],
)
def test_known_models_have_their_published_number_of_parameters(name: str, millions: float) -> None:
    shape = known_shapes(ModelSpec(name=name))
    assert shape is not None
    assert shape.num_parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_an_unknown_model_has_no_shape() -> None:
    assert known_shapes(ModelSpec(name="someone/something")) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_tells_the_shape_that_its_weights_have(family: Family, tmp_path: Path) -> None:
    from safetensors import safe_open

    folder = build_tiny_model(tmp_path / family, family)
    shape = known_shapes(ModelSpec(name=str(folder)))
    assert shape is not None
    with safe_open(folder / "model.safetensors", "pt") as weights:
        sizes = [weights.get_tensor(name).numel() for name in weights.keys()]  # noqa: SIM118
    assert (shape.family, shape.d_model, shape.num_layers) == (family, 32, 3)
    assert shape.num_parameters == sum(sizes)


def test_a_folder_without_a_readable_config_has_no_shape(tmp_path: Path) -> None:
    assert known_shapes(ModelSpec(name=str(tmp_path))) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "odd"}))
    assert known_shapes(ModelSpec(name=str(tmp_path))) is None


def test_a_truncated_pass_costs_the_blocks_that_run() -> None:
    shape = ModelShape("llama", 10, 4, 100, 6000, 64, 1000)
    assert truncated_flop_per_token(shape, -1) == 0
    assert truncated_flop_per_token(shape, 1, context=50) == 2 * (2 * 1000 + 2 * 50 * 10)


def test_the_input_of_a_module_is_a_hook_too(tmp_path: Path) -> None:
    names = module_names("gemma2")
    assert resolve_hook("resid_pre.0", "gemma2", names) == "model.layers.0:input"
    assert resolve_hook("model.layers.2:input", "gemma2", names) == "model.layers.2:input"
    assert split_input("model.layers.2:input") == ("model.layers.2", True)
    assert split_input("model.layers.2") == ("model.layers.2", False)
    layers = {"resid_pre.0": -1, "model.layers.2:input": 1, "model.layers.2.mlp:input": 2}
    assert {hook: layer_of(hook) for hook in layers} == layers
    with pytest.raises(UnknownHook, match="nearest are"):
        resolve_hook("model.layer.2:input", "gemma2", names)
    shape = known_shapes(ModelSpec(name=str(build_tiny_model(tmp_path, "gemma2"))))
    assert shape is not None
    check_hook("resid_pre.0", shape)
    assert hook_width("model.layers.2:input", shape) == shape.d_model
