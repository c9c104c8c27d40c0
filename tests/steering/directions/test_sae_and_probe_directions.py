"""Directions out of an SAE's decoder and out of a probe's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from sae.language_model import LanguageModel
from sae.trained_sae import BadSae, TrainedSae
from steering.directions import probe_vectors, sae_latent_vectors, sae_mean_difference
from steering.directions import sae_directions as module
from steering.errors import BadSteeringInput
from tests.sae.tiny_model import D_MODEL
from tests.steering.directions.planted_model import cosine, directions, plant, sentences, tiny_lm

HOOK = "resid_post.0"
LATENTS = 16


def _sae(hook: str | None = "blocks.0.hook_resid_post", d_in: int = D_MODEL) -> TrainedSae:
    """Latent i is how far an activation goes along planted direction i."""
    config = StandardSAEConfig(d_in=d_in, d_sae=LATENTS, metadata=SAEMetadata(hook_name=hook))
    sae = StandardSAE(config)
    rows_FD = directions(LATENTS) if d_in == D_MODEL else torch.ones(LATENTS, d_in)
    sae.load_state_dict(
        {
            "W_enc": rows_FD.T.contiguous(),
            "W_dec": rows_FD.contiguous(),
            "b_enc": torch.zeros(LATENTS),
            "b_dec": torch.zeros(d_in),
        }
    )
    return TrainedSae(sae.eval(), "planted")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model in which "+" is latent 7 of `_sae` and "-" is latent 3."""
    model = tiny_lm(tmp_path_factory.mktemp("planted"))
    planted = directions(LATENTS)
    plant(model, {"+": planted[7], "-": planted[3]}, size=5)
    return model


def test_a_latent_is_its_decoder_row(lm: LanguageModel) -> None:
    texts = sentences("+", 5, 0)
    found = sae_latent_vectors(lm, _sae(), [7], HOOK, texts)
    assert torch.allclose(found.vector_LD[0], directions(LATENTS)[7])
    both = sae_latent_vectors(lm, _sae(), {7: 1.0, 3: -0.5}, HOOK, texts)
    expected_D = directions(LATENTS)[7] - 0.5 * directions(LATENTS)[3]
    assert torch.allclose(both.vector_LD[0], expected_D, atol=1e-6)
    assert both.about.details["latents"] == {"7": 1.0, "3": -0.5}
    assert float(both.norm_L[0]) > 0
    assert len(both.about.parents["sae"]) == 64


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_the_mean_difference_of_latents_finds_what_was_planted(
    lm: LanguageModel, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 7)
    one, other = sentences("+", 40, 0), sentences("-", 40, 1)
    found = sae_mean_difference(lm, _sae(), one, other, HOOK, pooling)  # type: ignore[arg-type]
    planted = directions(LATENTS)
    largest = found.about.details["largest"]
    assert isinstance(largest, dict)
    assert set(list(largest)[:2]) == {"3", "7"}
    two = sae_mean_difference(lm, _sae(), one, other, HOOK, pooling, num_latents=2)  # type: ignore[arg-type]
    assert cosine(two.unit(HOOK), planted[7] - planted[3]) > 0.99


def test_latents_are_averaged_and_not_activations(lm: LanguageModel) -> None:
    """Token by token: encoding is not linear."""
    one, other = sentences("+", 3, 0), sentences("-", 4, 1)
    sae = _sae()
    found = sae_mean_difference(lm, sae, one, other, HOOK)
    means = []
    for texts in (one, other):
        rows = []
        for text in texts:
            ids = [lm.bos_token_id, *lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
            acts_TD = lm.activations(torch.tensor([ids]), [HOOK])[HOOK][0, 1:]
            rows.append(sae.encode(acts_TD).mean(dim=0))
        means.append(torch.stack(rows).mean(dim=0))
    expected_D = (means[0] - means[1]) @ sae.W_dec_FD
    assert torch.allclose(found.vector_LD[0], expected_D, atol=1e-6)


def test_saes_that_do_not_fit_are_refused(
    lm: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["x"]
    with pytest.raises(BadSae, match="33 wide, and 'resid_post.0' has 32"):
        sae_latent_vectors(lm, _sae(d_in=33), [0], HOOK, texts)
    with pytest.raises(BadSae, match="trained at blocks.0.hook_resid_post, not at 'resid_post.1'"):
        sae_latent_vectors(lm, _sae(), [0], "resid_post.1", texts)
    sae_latent_vectors(lm, _sae(), [0], "resid_pre.1", texts)
    sae_latent_vectors(lm, _sae("encoder.9"), [0], "resid_post.1", texts)
    assert "trained at 'encoder.9', which this model lacks" in caplog.text
    with pytest.raises(BadSteeringInput, match="latent of 0 to 15"):
        sae_latent_vectors(lm, _sae(), [16], HOOK, texts)
    with pytest.raises(BadSteeringInput, match="pooling mean, last, first"):
        sae_mean_difference(lm, _sae(), texts, texts, HOOK, "max")


def test_a_probes_weights_are_a_direction(lm: LanguageModel, tmp_path: Path) -> None:
    del tmp_path
    weight_D = np.arange(1, D_MODEL + 1, dtype=np.float64)
    texts = sentences("+", 4, 0)
    found = probe_vectors(lm, {HOOK: weight_D[None]}, texts, method="logistic_l2")
    assert found.vector_LD[0].tolist() == weight_D.tolist()
    assert found.about.details["probe"] == "logistic_l2"
    scaled = probe_vectors(lm, {HOOK: weight_D}, texts, scale_D_by_hook={HOOK: weight_D})
    assert scaled.vector_LD[0].tolist() == [1.0] * D_MODEL
    with pytest.raises(BadSteeringInput, match="has 3 weights, and activations there are 32"):
        probe_vectors(lm, {HOOK: np.ones(3)}, texts)
    with pytest.raises(BadSteeringInput, match="at least one hook"):
        probe_vectors(lm, {}, texts)
    with pytest.raises(BadSteeringInput, match="measured over texts"):
        probe_vectors(lm, {HOOK: weight_D}, [])
