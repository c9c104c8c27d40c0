"""Finished SAEs from anywhere: Gemma Scope's own files, SAELens folders, what cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from sae.trained_sae import BadSae, SaeSpec, TrainedSae, load_sae

D_IN, D_SAE = 3, 4
Weights = dict[str, np.ndarray[Any, Any]]


def weights() -> Weights:
    """Latent i reads coordinate i (the last one all of them), with a threshold of 1/2."""
    encoder = np.zeros((D_IN, D_SAE), dtype=np.float32)
    encoder[range(3), range(3)] = 1.0
    encoder[:, 3] = 1.0
    return {
        "W_enc": encoder,
        "W_dec": encoder.T.copy(),
        "b_enc": np.array([0.0, 0.0, 1.0, -10.0], dtype=np.float32),
        "b_dec": np.array([0.0, 0.0, 7.0], dtype=np.float32),
        "threshold": np.full(D_SAE, 0.5, dtype=np.float32),
    }


def npz(folder: Path, said: Weights) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **said)  # type: ignore[arg-type]
    return folder


def test_a_params_file_computes_what_gemma_scope_says(tmp_path: Path) -> None:
    sae = load_sae(SaeSpec(folder=str(npz(tmp_path / "sae", weights()))))
    assert (sae.d_in, sae.d_sae, sae.architecture) == (D_IN, D_SAE, "jumprelu")
    x_ND = torch.tensor([[2.0, 0.4, -0.2], [-1.0, 0.6, -3.0]])
    # z = x W_enc + b_enc, f = (z > threshold) relu(z), and b_dec is not taken off the input.
    expected_NF = torch.tensor([[2.0, 0.0, 0.8, 0.0], [0.0, 0.6, 0.0, 0.0]])
    torch.testing.assert_close(sae.encode(x_ND), expected_NF)
    expected_ND = torch.tensor([[2.0, 0.0, 7.8], [0.0, 0.6, 7.0]])
    torch.testing.assert_close(sae.decode(expected_NF), expected_ND)
    assert sae.hook is None
    assert sae.model_name is None
    assert not sae.needs_input_scale


@pytest.mark.parametrize(
    ("repository", "model", "hook"),
    [
        ("gemma-scope-2b-pt-res", "google/gemma-2-2b", "resid_post.12"),
        ("gemma-scope-9b-it-res", "google/gemma-2-9b-it", "resid_post.12"),
        ("gemma-scope-2b-pt-mlp", "google/gemma-2-2b", "mlp_out.12"),
    ],
)
def test_gemma_scopes_folders_say_model_and_hook(
    tmp_path: Path, repository: str, model: str, hook: str
) -> None:
    folder = tmp_path / repository / "layer_12" / "width_16k" / "average_l0_82"
    sae = load_sae(SaeSpec(folder=str(npz(folder, weights()))))
    assert (sae.model_name, sae.hook) == (model, hook)


def test_a_params_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    lacking = {name: value for name, value in weights().items() if name != "threshold"}
    with pytest.raises(BadSae, match="lacks threshold; fetch it again"):
        load_sae(SaeSpec(folder=str(npz(tmp_path / "lacking", lacking))))
    turned = weights() | {"W_dec": weights()["W_enc"]}
    with pytest.raises(BadSae, match=r"W_dec has shape \[3, 4\].*must have \[4, 3\]"):
        load_sae(SaeSpec(folder=str(npz(tmp_path / "turned", turned))))


def test_a_folder_without_an_sae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSae, match="holds no SAE; name a folder with cfg.json"):
        load_sae(SaeSpec(folder=str(tmp_path)))


def standard(folder: Path, **config: Any) -> Path:
    said = StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, **config)
    said.metadata["hook_name"] = "blocks.8.hook_resid_pre"
    StandardSAE(said).save_model(folder)
    return folder


def test_an_unfolded_scale_is_known_and_can_be_folded(tmp_path: Path) -> None:
    folder = standard(tmp_path / "sae", normalize_activations="expected_average_only_in")
    sae = load_sae(SaeSpec(folder=str(folder)))
    assert sae.needs_input_scale
    folded = sae.with_input_scale(4.0)
    assert sae.needs_input_scale
    assert not folded.needs_input_scale
    x_ND = torch.randn(5, D_IN, generator=torch.manual_seed(0))
    torch.testing.assert_close(folded.encode(x_ND), sae.encode(4.0 * x_ND))
    torch.testing.assert_close(
        folded.decode(folded.encode(x_ND)), sae.decode(sae.encode(4.0 * x_ND)) / 4.0
    )


def test_a_normalisation_that_is_not_folded_in_is_refused(tmp_path: Path) -> None:
    folder = standard(tmp_path / "sae", normalize_activations="covariance_whitening")
    with pytest.raises(BadSae, match="covariance_whitening, which is not folded"):
        load_sae(SaeSpec(folder=str(folder)))


def test_layer_norm_is_undone_in_what_is_decoded(tmp_path: Path) -> None:
    sae = load_sae(
        SaeSpec(folder=str(standard(tmp_path / "s", normalize_activations="layer_norm")))
    )
    x_ND = torch.randn(5, D_IN, generator=torch.manual_seed(0))
    torch.testing.assert_close(sae.encode(x_ND), sae.encode(10.0 * x_ND), atol=1e-3, rtol=1e-3)
    near = sae.decode(sae.encode(x_ND))
    far = sae.decode(sae.encode(10.0 * x_ND))
    torch.testing.assert_close(far, 10.0 * near, atol=1e-3, rtol=1e-3)


def test_transformer_lens_hooks_are_of_our_grammar(tmp_path: Path) -> None:
    from sae.language_model import LanguageModel
    from sae.stream_spec import ModelSpec
    from tests.sae.tiny_model import build_tiny_model

    sae = TrainedSae(StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=D_SAE)), "sae")
    sae.sae.cfg.metadata["hook_name"] = "blocks.2.hook_resid_pre"
    lm = LanguageModel.load(ModelSpec(name=str(build_tiny_model(tmp_path / "m"))), "cpu")
    assert sae.hook is not None
    assert lm.path_of(sae.hook) == lm.path_of("resid_pre.2")


def test_importing_it_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, sae.trained_sae; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
