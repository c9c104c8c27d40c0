"""The exported folder is a SAELens SAE that gives the numbers of the trained member."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load_file

from sae import memory
from sae.architectures import by_architecture
from sae.evaluation import exported_forward, member_forward
from sae.export import ExportDiffers, export_member, finish_member, verify_export, weights_on_host
from sae.memory import sae_lens_evaluation_bytes
from sae.metric_names import AT_THE_END, REPORTED
from sae.pack import Pack
from sae.sae_lens_evals import run_sae_lens_evals
from tests.sae.batched.live_bytes import LiveBytes
from tests.sae.synthetic_source import SourceWithModel, small_config
from tests.sae.test_evaluation import HOOK, source, trained

__all__ = ["source"]

ARCHITECTURES = sorted(by_architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_finished_member_loads_in_sae_lens_with_the_same_numbers(
    architecture: str, source: SourceWithModel, tmp_path: Path
) -> None:
    member = trained(source, architecture, steps=100)
    before = member.sae.W_enc.detach().clone()
    report = finish_member(member, source, tmp_path)
    assert set(report.metrics) == {*REPORTED, *AT_THE_END}
    loaded, evals = report.record["loaded_back"], report.record["sae_lens_evals"]
    for found in (loaded, evals):
        assert found["explained_variance"] == pytest.approx(
            report.metrics["explained_variance"], abs=1e-3
        )
        assert found["l0"] == pytest.approx(report.metrics["l0"], rel=5e-3)
    assert evals["mse"] == pytest.approx(report.metrics["mse"], rel=1e-2)
    assert evals["ce_loss_score"] == pytest.approx(report.metrics["ce_recovered"], abs=1e-3)
    assert evals["kl_div_with_sae"] == pytest.approx(report.metrics["kl_sae"], rel=1e-2)
    assert torch.equal(before, member.sae.W_enc)
    json.dumps(report.record)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_in_sae_lens_s_evaluation_take_no_more_than_is_planned(
    architecture: str,
    source: SourceWithModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "SAE_LENS_CONTEXTS", 3)  # of 9
    member = trained(source, architecture, steps=1, d_sae=4096)
    export_member(member, source, tmp_path)
    exported = SAE.load_from_disk(tmp_path)
    with LiveBytes() as live:
        run_sae_lens_evals(exported, source, HOOK)
    context = source.held_out.tokens_CT.shape[-1]
    planned = sae_lens_evaluation_bytes(member.config, context=context)
    # Beside some numbers a latent, and logits.
    assert live.peak == pytest.approx(planned, rel=0.1)


def test_what_is_folded_for_an_export_is_a_copy_on_the_host(source: SourceWithModel) -> None:
    member = trained(source, "topk", steps=1)
    sae = weights_on_host(member.sae)
    for name, ours in member.sae.state_dict().items():
        theirs = sae.state_dict()[name]
        assert torch.equal(theirs, ours)
        assert theirs.data_ptr() != ours.data_ptr()
    assert [type(each) for each in sae.parameters()] == [torch.nn.Parameter] * 4
    assert sae.cfg is not member.sae.cfg


def test_so_few_contexts_are_evaluated_at_a_time_that_their_latents_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert memory.sae_lens_contexts(d_sae=24576, context=128) == memory.SAE_LENS_CONTEXTS
    # 2048 * 131072 * 4 bytes are 1 GiB: even one context is above the limit.
    assert memory.sae_lens_contexts(d_sae=131072, context=2048) == 1
    monkeypatch.setattr(memory, "MAX_SAE_LENS_LATENT_BYTES", 2 * 2**30)
    assert memory.sae_lens_contexts(d_sae=131072, context=2048) == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("parameters", [{}, {"normalize_activations": "none"}])
def test_the_inference_form_in_training_is_the_exported_sae(
    architecture: str, parameters: dict[str, str], source: SourceWithModel, tmp_path: Path
) -> None:
    member = trained(source, architecture, steps=40, **parameters)
    export_member(member, source, tmp_path)
    x_ND = source.held_out.activations(HOOK)
    with torch.no_grad():
        fired_F, xhat_ND = member_forward(member, exported=True)(x_ND)
        loaded_F, loaded_ND = exported_forward(SAE.load_from_disk(tmp_path))(x_ND)
    assert torch.allclose(xhat_ND, loaded_ND, atol=1e-4)
    assert (fired_F - loaded_F).abs().sum() < 1e-3 * len(x_ND) * len(fired_F)


def test_the_folder_says_where_the_sae_belongs(source: SourceWithModel, tmp_path: Path) -> None:
    member = trained(source, "batchtopk")
    export_member(member, source, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "jumprelu"
    assert config["normalize_activations"] == "none"
    metadata = config["metadata"]
    assert metadata["hook_name"] == HOOK
    assert metadata["training_architecture"] == "batchtopk"
    assert metadata["context_size"] == source.held_out.tokens_CT.shape[-1]
    sparsity_F = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    frequency_F = member.trainer.act_freq_scores / member.trainer.n_frac_active_samples
    assert torch.allclose(10**sparsity_F, frequency_F, atol=1e-6)


def test_a_member_that_trained_no_step_can_be_exported(
    source: SourceWithModel, tmp_path: Path
) -> None:
    export_member(trained(source, "topk", steps=0), source, tmp_path)
    json.loads((tmp_path / "cfg.json").read_text(), parse_constant=pytest.fail)


def test_an_export_with_other_numbers_is_refused(source: SourceWithModel, tmp_path: Path) -> None:
    member = trained(source, "topk")
    export_member(member, source, tmp_path)
    with pytest.raises(ExportDiffers) as caught:
        verify_export(tmp_path, source, HOOK, {"explained_variance": 0.5, "l0": 4.0})
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again).startswith("export differs from what was trained: trained explained_var")
    assert "loaded back explained_variance=" in str(again)
    assert "sae_lens evals explained_variance=" in str(again)


def test_numbers_that_are_not_numbers_do_not_pass(source: SourceWithModel, tmp_path: Path) -> None:
    member = trained(source, "topk")
    export_member(member, source, tmp_path)
    with pytest.raises(ExportDiffers):
        verify_export(tmp_path, source, HOOK, {"explained_variance": float("nan"), "l0": 4.0})


def test_the_model_keeps_no_hook_and_the_pack_steps_on_meanwhile(
    source: SourceWithModel, tmp_path: Path
) -> None:
    pack = Pack(source)
    for name in ("done", "going"):
        pack.attach(name, small_config("topk"), 400 * source.batch_tokens)
    pack.set_target("done", 20 * source.batch_tokens)
    while pack.run_step():
        pass
    pack.set_target("going", 300 * source.batch_tokens)
    found = []
    finishing = threading.Thread(target=lambda: found.append(pack.finish("done", tmp_path)))
    finishing.start()
    while pack.run_step():
        pass
    finishing.join()
    assert found[0].metrics["ce_recovered"] > 0
    assert pack.tokens("going") == 300 * source.batch_tokens
    assert not source.language_model.model.get_submodule(HOOK)._forward_hooks
