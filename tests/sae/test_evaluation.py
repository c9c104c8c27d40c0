"""What is reported is what sae_lens would measure, and what a user would take it for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sae_lens.evals import ExplainedVarianceCalculator
from torch import Tensor

from sae.architectures import by_architecture
from sae.downstream import context_batches, downstream_metrics, num_contexts_for
from sae.evaluation import member_forward, reconstruction_metrics, report_metrics
from sae.language_model import LanguageModel
from sae.member import Member
from sae.stream_spec import ModelSpec
from tests.sae.synthetic_source import SourceWithModel, SyntheticSource, small_config
from tests.sae.tiny_model import D_MODEL, VOCAB_SIZE, build_tiny_model

HOOK = "model.layers.1"


def trained(
    source: SyntheticSource, architecture: str, steps: int = 60, **parameters: Any
) -> Member:
    config = small_config(architecture, **parameters)
    member = Member.from_source(config, source, 200 * source.batch_tokens)
    for position in range(steps):
        member.step(source.batch_at(position)[member.hook], position)
    return member


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceWithModel:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    model = LanguageModel.load(ModelSpec(name=str(folder)), "cpu")
    tokens_CT = torch.randint(5, VOCAB_SIZE, (9, 16), generator=torch.Generator().manual_seed(0))
    return SourceWithModel(model, HOOK, D_MODEL, tokens_CT)


def test_explained_variance_is_sae_lens_s_also_beside_a_large_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(1000, 16, generator=generator) + 100
    xhat_ND = x_ND + 0.5 * torch.randn(1000, 16, generator=generator)
    theirs = ExplainedVarianceCalculator()
    theirs.add_batch(xhat_ND.double(), x_ND.double())
    ours = reconstruction_metrics(lambda part_ND: ((part_ND != 0).sum(0), xhat_ND), x_ND, 16)
    assert ours["explained_variance"] == pytest.approx(theirs.compute(), abs=1e-9)
    assert ours["fvu"] == pytest.approx(0.25, rel=0.05)
    assert ours["mse"] == pytest.approx(4.0, rel=0.05)


def test_chunks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SyntheticSource()
    member = trained(source, "topk")
    x_ND = source.held_out.activations("layer")
    whole = reconstruction_metrics(member_forward(member, exported=True), x_ND, 64)
    monkeypatch.setattr("sae.evaluation.MAX_CHUNK_BYTES", 1)
    assert reconstruction_metrics(member_forward(member, exported=True), x_ND, 64) == pytest.approx(
        whole
    )


def test_a_perfect_and_an_empty_reconstruction_have_the_expected_numbers() -> None:
    x_ND = SyntheticSource().held_out.activations("layer")
    fires_F = torch.tensor([1, 1, 1, 0])
    perfect = reconstruction_metrics(lambda x: (len(x) * fires_F, x), x_ND, 4)
    assert perfect["fvu"] == 0
    assert perfect["cosine"] == pytest.approx(1)
    assert perfect["norm_ratio"] == pytest.approx(1)
    assert perfect["l0"] == 3
    assert perfect["silent_fraction"] == 0.25
    mean = reconstruction_metrics(lambda x: (fires_F, x_ND.mean(0).expand_as(x)), x_ND, 4)
    assert mean["explained_variance"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("architecture", sorted(by_architecture))
def test_training_shows_in_the_report_of_every_architecture(architecture: str) -> None:
    source = SyntheticSource()
    before = report_metrics(trained(source, architecture, steps=0), source)
    after = report_metrics(trained(source, architecture, steps=200), source)
    assert after["fvu"] < 0.8 * before["fvu"]
    assert 0 < after["l0"] < 64


def test_weights_that_are_not_numbers_show_in_the_report() -> None:
    source = SyntheticSource()
    member = trained(source, "standard", steps=1)
    member.sae.W_dec.data.fill_(float("nan"))
    assert report_metrics(member, source)["fvu"] != report_metrics(member, source)["fvu"]


def test_dead_latents_are_counted_after_the_window() -> None:
    source = SyntheticSource()
    member = trained(source, "topk", steps=30)
    member.trainer.n_forward_passes_since_fired[:16] = 21
    member.trainer.n_forward_passes_since_fired[16:] = 20
    assert report_metrics(member, source)["dead_fraction"] == 0.25


def test_contexts_are_taken_until_enough_tokens_are_kept() -> None:
    kept_CT = torch.tensor([[0, 1, 1], [0, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
    assert [num_contexts_for(kept_CT, tokens) for tokens in (1, 2, 3, 4, 99)] == [1, 1, 3, 4, 4]


def test_a_perfect_reconstruction_recovers_all_of_the_loss(source: SourceWithModel) -> None:
    found = downstream_metrics(lambda x_ND: x_ND, source, HOOK)
    assert found["ce_recovered"] == pytest.approx(1, abs=1e-5)
    assert found["ce_recovered_mean"] == pytest.approx(1, abs=1e-5)
    assert found["kl_sae"] == pytest.approx(0, abs=1e-6)
    assert found["kl_zero"] > 0
    assert found["ce_sae"] == pytest.approx(found["ce_clean"], abs=1e-6)


def test_the_mean_as_reconstruction_is_the_mean_ablation(source: SourceWithModel) -> None:
    mean_D = source.held_out.activations(HOOK).mean(dim=0)
    found = downstream_metrics(lambda x_ND: mean_D.expand_as(x_ND), source, HOOK)
    assert found["ce_sae"] == pytest.approx(found["ce_mean"], rel=1e-6)
    assert found["ce_recovered_mean"] == pytest.approx(0, abs=1e-5)


def test_only_kept_positions_are_replaced_and_scored(source: SourceWithModel) -> None:
    seen: list[Tensor] = []

    def spy(x_ND: Tensor) -> Tensor:
        seen.append(x_ND)
        return x_ND

    downstream_metrics(spy, source, HOOK)
    assert torch.allclose(torch.cat(seen), source.held_out.activations(HOOK), atol=1e-5)


def test_losses_do_not_depend_on_what_is_kept_in_memory_or_on_batches(
    source: SourceWithModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = downstream_metrics(lambda x_ND: 0.9 * x_ND, source, HOOK, ce_tokens=100)
    monkeypatch.setattr("sae.downstream.MAX_CLEAN_LOGIT_BYTES", 0)
    monkeypatch.setattr("sae.downstream.MAX_LOGIT_BYTES", 0)
    assert all(len(batch.tokens_CT) == 1 for batch in context_batches(source, 100))
    again = downstream_metrics(lambda x_ND: 0.9 * x_ND, source, HOOK, ce_tokens=101)
    assert again == pytest.approx(kept, rel=1e-4)


def test_the_model_is_left_without_hooks(source: SourceWithModel) -> None:
    with pytest.raises(ZeroDivisionError):
        downstream_metrics(lambda x_ND: x_ND / (1 // 0), source, HOOK)
    module = source.language_model.model.get_submodule(HOOK)
    assert not module._forward_hooks


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_report_is_of_the_sae_as_it_trains_not_of_a_threshold_that_has_not_settled(
    architecture: str,
) -> None:
    source = SyntheticSource()
    member = trained(source, architecture, steps=3)
    as_trained = report_metrics(member, source)["l0"]
    assert as_trained == pytest.approx(member.config.model_dump()["k"], rel=0.05)
    assert report_metrics(member, source, exported=True)["l0"] > 1.5 * as_trained
