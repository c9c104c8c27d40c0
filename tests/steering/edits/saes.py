"""Random SAEs of each architecture that sae_lens has for inference."""

from __future__ import annotations

from typing import Any

import torch
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY

from sae.trained_sae import TrainedSae
from tests.sae.tiny_model import D_MODEL

D_SAE = 48
ARCHITECTURES = sorted(SAE_CLASS_REGISTRY)
MORE: dict[str, dict[str, Any]] = {
    "topk": {"k": 8},
    "abstopk": {"k": 8},
    "matching_pursuit": {"residual_threshold": 0.1, "max_iterations": 8},
    **{
        name: {"d_out": D_MODEL, "apply_b_dec_to_input": False}
        for name in ARCHITECTURES
        if "transcoder" in name
    },
}


def random_sae(architecture: str = "standard", **settings: Any) -> TrainedSae:
    """Biases, thresholds and gates are random too; about half of the latents fire."""
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    config = config_class(
        d_in=D_MODEL, d_sae=D_SAE, device="cpu", **MORE.get(architecture, {}), **settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        sae: SAE[Any] = sae_class(config)
        with torch.no_grad():
            for name, weight in sae.named_parameters():
                weight.normal_(std=0.2)
                if name == "threshold":
                    weight.abs_()
    return TrainedSae(sae.eval(), f"random {architecture}")
