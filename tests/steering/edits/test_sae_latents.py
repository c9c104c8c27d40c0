"""Editing latents equals decoding the changed ones and adding the SAE's error, without decoding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.trained_sae import TrainedSae
from steering.edits import SaeLatents, steered
from steering.errors import BadSteeringInput
from tests.sae.tiny_model import D_MODEL
from tests.steering.edits.models import HOOK, some_rows, tiny_lm
from tests.steering.edits.saes import ARCHITECTURES, D_SAE, random_sae

EDITED = ("standard", "gated", "jumprelu", "topk", "abstopk", "matching_pursuit")
CHANGES: dict[int, Any] = {
    **dict.fromkeys(range(4), ("set", 1.7)),
    **dict.fromkeys(range(10, 14), ("scale", 0.0)),
    **dict.fromkeys(range(20, 24), ("scale", -0.5)),
}


def decoded_with_error(sae: TrainedSae, x_MD: Tensor) -> Tensor:
    """AxBench's DictionaryAdditionIntervention: dec(f') + (x - dec(f)), wholly decoded."""
    latents_MF = sae.encode(x_MD)
    error_MD = x_MD - sae.decode(latents_MF)
    changed_MF = sae.encode(x_MD)
    for latent, (kind, value) in CHANGES.items():
        changed_MF[:, latent] = value if kind == "set" else value * changed_MF[:, latent]
    return sae.decode(changed_MF) + error_MD


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", EDITED)
@torch.no_grad()
def test_equals_the_full_decode_with_error(architecture: str, norm: str) -> None:
    sae = random_sae(architecture, normalize_activations=norm)
    _check(sae)


@pytest.mark.parametrize("architecture", EDITED)
@torch.no_grad()
def test_the_bias_may_be_left_on_the_input(architecture: str) -> None:
    _check(random_sae(architecture, apply_b_dec_to_input=False))


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
@torch.no_grad()
def test_acts_scaled_by_decoder_norms(architecture: str) -> None:
    _check(random_sae(architecture, rescale_acts_by_decoder_norm=True))


def _check(sae: TrainedSae) -> None:
    x_MD = torch.randn((40, D_MODEL), generator=torch.Generator().manual_seed(2)) * 2 + 0.3
    expected_MD = decoded_with_error(sae, x_MD)
    edit, row_M = SaeLatents(HOOK, sae, CHANGES), torch.zeros(40, dtype=torch.long)
    found_MD = edit.change(x_MD, row_M, torch.tensor(1.0))
    torch.testing.assert_close(found_MD, expected_MD, atol=1e-5, rtol=1e-5)
    assert (found_MD - x_MD).abs().max() > 0.1
    half_MD = edit.change(x_MD, row_M, torch.tensor(0.5))
    torch.testing.assert_close(half_MD, (x_MD + expected_MD) / 2, atol=1e-5, rtol=1e-5)
    assert torch.equal(edit.change(x_MD, row_M, torch.tensor(0.0)), x_MD)


def test_every_architecture_of_sae_lens_is_edited_or_refused() -> None:
    for architecture in ARCHITECTURES:
        sae = random_sae(architecture) if architecture != "temporal" else _temporal()
        if architecture in EDITED:
            SaeLatents(HOOK, sae, CHANGES)
            continue
        with pytest.raises(BadSteeringInput, match=f"is a {architecture}, whose output is no sum"):
            SaeLatents(HOOK, sae, CHANGES)


def _temporal() -> TrainedSae:
    """A real one needs heads and a width that a tiny model lacks; it is refused by its name."""
    return TrainedSae(SimpleNamespace(cfg=SimpleNamespace(architecture=lambda: "temporal")), "it")


def test_a_latent_that_is_off_and_turned_off_changes_nothing() -> None:
    sae, lm, ids_NT = random_sae("jumprelu"), tiny_lm(), torch.stack(some_rows((5, 5)))
    acts = lm.activations(ids_NT, [HOOK])[HOOK]
    is_off_F = (sae.encode(acts.reshape(-1, D_MODEL)) == 0).all(dim=0)
    dead = {int(latent): ("scale", 0.0) for latent in is_off_F.nonzero()}
    assert dead
    with steered(lm, [SaeLatents(HOOK, sae, dead)]):  # type: ignore[arg-type]
        assert torch.equal(lm.activations(ids_NT, [HOOK])[HOOK], acts)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ({}, "no latent is named"),
        ({D_SAE: ("set", 1.0)}, f"has 0 to {D_SAE - 1}"),
        ({0: ("add", 1.0)}, "known: set, scale"),
        ({0: ("set", float("nan"))}, "latent 0: the value holds NaN"),
        ({0: ("set", torch.ones(2)), 1: ("set", torch.ones(3))}, "different numbers of rows"),
    ],
)
def test_what_cannot_be_meant_is_refused(latents: Any, message: str) -> None:
    with pytest.raises(BadSteeringInput, match=message):
        SaeLatents(HOOK, random_sae(), latents)


def test_saes_that_need_what_no_hook_gives_are_refused() -> None:
    with pytest.raises(BadSteeringInput, match="times a constant that its files do not say"):
        SaeLatents(HOOK, random_sae(normalize_activations="expected_average_only_in"), CHANGES)
    with pytest.raises(BadSteeringInput, match="reads attention heads"):
        SaeLatents(HOOK, random_sae(reshape_activations="hook_z"), CHANGES)
