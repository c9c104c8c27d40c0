"""Run by test_triton_kernels with TRITON_INTERPRET=1: whole steps against sae_lens's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sae.architectures import parse_architecture
from sae.batched import topk_family
from sae.batched.backend import BatchedBackend
from sae.batched.kernels import torch_kernels
from tests.sae.batched import autocast_rival, rival
from tests.sae.batched.parity_cases import Life
from tests.sae.batched.planted import PlantedActivations

NUM_STEPS = 6
D_SAE = 24
OWN: tuple[dict[str, Any], ...] = (
    {"k": 3, "lr": 3e-3, "dead_feature_window": 1},
    {"k": 5, "lr": 1e-2, "dead_feature_window": 2, "adam_beta1": 0.8, "aux_loss_coefficient": 0.5},
    {"k": 2, "lr": 1e-3, "dead_feature_window": 10, "apply_b_dec_to_input": False},
)
"""The last member has no dead latents."""
LIVES: tuple[dict[str, Any], ...] = ({"depth": 1.0}, {"joins": 1, "depth": 1.0}, {"leaves": 4})
CASES: dict[str, dict[str, Any]] = {
    "topk": {},
    "batchtopk": {},
    "matryoshka_batchtopk": {
        "matryoshka_widths": (5, 16, D_SAE),
        "use_matryoshka_aux_loss": True,
    },
}


FEW = PlantedActivations(d_in=5, batch_tokens=6)
ROUNDED = autocast_rival.Bounds(firing=0.02, gradient=0.1, slope=1e-2, update=2e-2, loss=2e-2)
"""Few tokens and few steps, over which rounding does not average out."""


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes about 10 ms a program; 5 and 24 are no multiples of a block."""
    for module in (rival, autocast_rival):
        monkeypatch.setattr(module, "SOURCE", FEW)
        monkeypatch.setattr(module, "NUM_STEPS", NUM_STEPS)
    monkeypatch.setenv("SAEQ_KERNELS", "triton")


def lives_of(architecture: str) -> dict[str, Life]:
    return {
        f"m{number}": Life(
            parse_architecture(
                {
                    "architecture": architecture,
                    "d_sae": D_SAE,
                    "init_seed": number,
                    **own,
                    **CASES[architecture],
                }
            ),
            **{"leaves": NUM_STEPS, **life},
        )
        for number, (own, life) in enumerate(zip(OWN, LIVES, strict=True))
    }


@pytest.mark.parametrize("architecture", sorted(CASES))
def test_steps_together_are_steps_alone(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if architecture == "topk":
        # By so few latents the auxiliary loss would be dense, and not by these kernels.
        monkeypatch.setattr(topk_family, "DENSE_DEAD_RATIO", 1)
    lives = lives_of(architecture)
    ours = rival.run_group(BatchedBackend(), lives)
    for name, life in lives.items():
        alone = rival.run_bare(life)
        assert bool(max(alone.aux_losses) > 0) == bool(life.depth), name
        found = rival.differences(ours[name], alone, tolerance=1e-4, loss_tolerance=1e-4)
        assert not found, (name, found)


def test_dead_latents_of_a_topk_step_go_through_the_sparse_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topk_family, "DENSE_DEAD_RATIO", 1)
    monkeypatch.setattr(torch_kernels.TorchKernels, "decode", None)
    life = lives_of("topk")["m0"]
    rival.run_group(BatchedBackend(), {"m0": life})


@pytest.mark.parametrize("architecture", ["topk", "matryoshka_batchtopk"])
def test_steps_with_autocast_are_sae_lens_s(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk_family, "DENSE_DEAD_RATIO", 1)
    lives = {
        name: replace(life, config=life.config.model_copy(update={"autocast": True}))
        for name, life in lives_of(architecture).items()
    }
    ours = autocast_rival.our_steps(lives)
    assert autocast_rival.faults(ours, autocast_rival.their_steps(lives, ours), ROUNDED) == []


def test_a_relu_architecture_keeps_its_dense_products() -> None:
    config = parse_architecture(
        {"architecture": "standard", "d_sae": D_SAE, "lr": 1e-2, "l1_coefficient": 0.5}
    )
    life = Life(config, leaves=3)
    ours = rival.run_group(BatchedBackend(), {"m": life})["m"]
    assert not rival.differences(ours, rival.run_bare(life), tolerance=1e-4, loss_tolerance=1e-4)
