"""Members trained by Signum: as a plain writing of the paper moves the trainer of sae_lens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.architectures import ArchitectureConfig, by_architecture
from sae.member import Member
from sae.member_state import STATE_FILE, BadCheckpoint, load_member, save_member
from sae.optimizers.signum import Signum
from tests.sae.batched.parity_cases import Life
from tests.sae.batched.rival import differences
from tests.sae.optimizers.trainings import BACKENDS, run_bare, run_member
from tests.sae.synthetic_source import SyntheticSource, scheduled_config, small_config

ARCHITECTURES = sorted(by_architecture)
SIGNUM: dict[str, Any] = {"optimizer": "signum", "signum_beta": 0.8, "lr": 1e-3}


class PlainSignum(torch.optim.Optimizer):
    """Algorithm 2 of Bernstein et al. 2018, on one worker, written down once more."""

    def __init__(self, params: Any, lr: float, beta: float) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            beta, lr = group["beta"], group["lr"]
            for x in group["params"]:
                m = self.state[x].get("exp_avg", torch.zeros_like(x))
                m = beta * m + (1 - beta) * x.grad
                self.state[x]["exp_avg"] = m
                x -= lr * torch.sign(m)


def config_of(architecture: str, dtype: str, **more: Any) -> ArchitectureConfig:
    return scheduled_config(architecture, dtype=dtype, **{**SIGNUM, **more})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fifty_steps_are_those_of_the_paper(architecture: str, backend: str) -> None:
    life = Life(config_of(architecture, "float64"), depth=1.0)
    config = life.config

    def plain(parameters: Any) -> PlainSignum:
        return PlainSignum(parameters, lr=config.learning_rate, beta=config.signum_beta)

    ours, theirs = run_member(life, BACKENDS[backend]()), run_bare(life, plain)
    assert not differences(ours, theirs, tolerance=1e-9, loss_tolerance=3e-7)


def test_every_weight_moves_by_the_learning_rate_against_its_mean_gradient() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    optimizer = Signum([weight], lr=0.25, beta=0.5)
    weight.grad = torch.tensor([3.0, -1e-6, 0.0], dtype=torch.float64)
    optimizer.step()
    assert weight.tolist() == [0.75, 1.25, 1.0]
    weight.grad = torch.tensor([-1.0, 1e-3, -1e-9], dtype=torch.float64)
    optimizer.step()
    assert weight.tolist() == [0.5, 1.0, 1.25]  # the first one's mean is 0.25


def test_a_checkpoint_from_before_there_was_a_choice_is_adam_s(tmp_path: Path) -> None:
    source = SyntheticSource()
    save_member(Member.from_source(small_config("topk"), source, 3840), tmp_path)
    state = json.loads((tmp_path / STATE_FILE).read_text())
    for name in ("optimizer", "signum_beta"):
        del state["config"][name]
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    load_member(Member.from_source(small_config("topk"), source, 3840), tmp_path)
    signum = Member.from_source(small_config("topk", **SIGNUM), source, 3840)
    with pytest.raises(BadCheckpoint, match="optimizer='adam' there, 'signum' here"):
        load_member(signum, tmp_path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"optimizer": "signum", "lr": "auto"},
            "lr=auto is a rule for adam, whose steps are of another length than those of "
            "optimizer=signum; give lr as a number",
        ),
        (
            {"optimizer": "signum", "adam_beta1": 0.0},
            "adam_beta1=0 is not used by optimizer=signum; drop it, or change the optimizer",
        ),
        (
            {"signum_beta": 0.5},
            "signum_beta=0.5 is not used by optimizer=adam; drop it, or change the optimizer",
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(parameters: dict[str, Any], message: str) -> None:
    assert small_config("topk", **parameters).faults() == [message]
