"""Members trained by Muon: as a plain writing of it moves sae_lens's trainer, and as torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig, by_architecture
from sae.optimizers.muon import Muon, orthogonal
from tests.sae.batched.parity_cases import Life
from tests.sae.batched.rival import differences
from tests.sae.optimizers.trainings import (
    BACKENDS,
    run_bare,
    run_member,
    unexplained_on_planted,
)
from tests.sae.synthetic_source import scheduled_config, small_config

ARCHITECTURES = sorted(by_architecture)
MUON: dict[str, Any] = {"optimizer": "muon", "muon_momentum": 0.8, "adam_beta2": 0.95, "lr": 1e-3}
SHAPES = [(16, 96), (96, 16), (32, 32)]


class PlainMuon(torch.optim.Optimizer):
    """Algorithm 2 of Liu et al. 2025 without decay, torch's Adam for vectors, written once more.

    The moment is a mean of gradients, as in torch's own Muon: a sum has the same direction.
    """

    def __init__(self, params: Any, config: ArchitectureConfig) -> None:
        self._mu = config.muon_momentum
        params = list(params)
        super().__init__(params, {"lr": config.learning_rate})
        vectors = [param for param in params if param.ndim == 1]
        self._adam = torch.optim.Adam(
            vectors, lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2)
        )
        self._adam.state = self.state

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        del closure
        (group,) = self.param_groups
        for x in group["params"]:
            if x.ndim == 2:
                m = self.state[x].get("momentum", torch.zeros_like(x))
                m = self._mu * m + (1 - self._mu) * x.grad
                self.state[x]["momentum"] = m
                u = self._mu * m + (1 - self._mu) * x.grad
                o = u / torch.linalg.matrix_norm(u)
                for _ in range(5):
                    o = 3.4445 * o - 4.7750 * o @ o.T @ o + 2.0315 * o @ o.T @ o @ o.T @ o
                x -= group["lr"] * 0.2 * max(x.shape) ** 0.5 * o
        self._adam.param_groups[0]["lr"] = group["lr"]
        self._adam.step()


def config_of(architecture: str, dtype: str, **more: Any) -> ArchitectureConfig:
    return scheduled_config(architecture, dtype=dtype, **{**MUON, **more})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fifty_steps_are_those_of_the_paper(architecture: str, backend: str) -> None:
    life = Life(config_of(architecture, "float64"), depth=1.0)
    theirs = run_bare(life, lambda parameters: PlainMuon(parameters, life.config))
    ours = run_member(life, BACKENDS[backend]())
    assert not differences(ours, theirs, tolerance=1e-9, loss_tolerance=3e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_matrices_move_as_by_torchs_own_which_multiplies_in_bfloat16(
    shape: tuple[int, int],
) -> None:
    start, lr = random(shape), 1e-2
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muon = Muon([ours], lr, 0.95, (0.9, 0.999), torch.bfloat16)
    rival = torch.optim.Muon(
        [theirs], lr=lr, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(1, 11):
        ours.grad, theirs.grad = random(shape, seed), random(shape, seed)
        muon.step()
        rival.step()  # type: ignore[no-untyped-call]
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", SHAPES)
def test_what_comes_out_is_nearly_orthogonal_and_keeps_its_singular_vectors(
    shape: tuple[int, int],
) -> None:
    matrix = random(shape).double()
    found = orthogonal(matrix, torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ found @ right.T
    values = inside.diagonal()
    assert 0.6 < values.min() <= values.max() < 1.3
    assert (inside - values.diag()).norm() < 1e-9 * values.norm()


def test_a_step_is_as_long_as_adams_usual_one_whatever_the_shape() -> None:
    for shape in SHAPES:
        weight = torch.nn.Parameter(torch.zeros(shape))
        weight.grad = 1e-6 * random(shape)
        Muon([weight], lr=1e-3, momentum=0.95, betas=(0.9, 0.999)).step()
        root_mean_square = weight.detach().square().mean().sqrt()
        assert root_mean_square == pytest.approx(0.2e-3, rel=0.25)


def test_latents_without_a_gradient_stay_and_zeros_are_no_division_by_zero() -> None:
    weight = torch.nn.Parameter(random((96, 16)))
    before = weight.detach().clone()
    optimizer = Muon([weight], lr=1e-3, momentum=0.95, betas=(0.9, 0.999))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.equal(weight, before)
    weight.grad = random((96, 16))
    weight.grad[:40] = 0
    optimizer.step()
    assert torch.equal(weight[:40], before[:40])
    assert not (weight[40:] == before[40:]).any()


def test_autocast_multiplies_in_bfloat16_and_keeps_the_weights_type() -> None:
    weights = {}
    for autocast in (False, True):
        life = Life(config_of("topk", "float32", autocast=autocast))
        weights[autocast] = run_member(life, BACKENDS["batched"]()).state["sae.W_dec"]
    assert weights[True].dtype == torch.float32
    apart = (weights[True] - weights[False]).norm() / weights[False].norm()
    assert 1e-4 < apart < 0.1


@pytest.mark.long
@pytest.mark.parametrize(
    ("architecture", "knob"), [("topk", {"k": 8}), ("standard", {"l1_coefficient": 1.0})]
)
def test_it_learns_as_well_as_adam_at_adams_rate(architecture: str, knob: dict[str, Any]) -> None:
    """Unexplained, muon against adam: 0.036, 0.035 for topk; 0.072, 0.080 for standard."""
    unexplained = {
        name: unexplained_on_planted(
            small_config(
                architecture, d_sae=512, lr=3e-3, optimizer=name, dead_feature_window=1000, **knob
            )
        )
        for name in ("adam", "muon")
    }
    assert unexplained["adam"] < 0.1
    assert unexplained["muon"] < 1.15 * unexplained["adam"], unexplained


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"optimizer": "muon", "signum_beta": 0.5},
            "signum_beta=0.5 is not used by optimizer=muon; drop it, or change the optimizer",
        ),
        (
            {"muon_momentum": 0.5},
            "muon_momentum=0.5 is not used by optimizer=adam; drop it, or change the optimizer",
        ),
        (
            {"optimizer": "muon", "adam_moments": "8bit"},
            "adam_moments=8bit is not used by optimizer=muon; drop it, or change the optimizer",
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(parameters: dict[str, Any], message: str) -> None:
    assert small_config("topk", **parameters).faults() == [message]


def test_the_automatic_rate_is_adams() -> None:
    assert not small_config("topk", optimizer="muon", lr="auto").faults()


def random(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
