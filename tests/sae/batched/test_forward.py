"""Held-out numbers by a stepper's own kernels are those that sae_lens's forward pass gives."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from sae.batched.backend import BatchedStepper
from sae.evaluation import member_forward, reconstruction_metrics
from sae.member import REFERENCE_STEPPER, Member
from tests.sae.synthetic_source import SyntheticSource, small_config

SOURCE = SyntheticSource()
CPU = torch.device("cpu")
SPARSE = [
    ("topk", {}),
    ("topk", {"rescale_acts_by_decoder_norm": True}),
    ("topk", {"apply_b_dec_to_input": True}),
    ("topk", {"dtype": "float64"}),
    ("topk", {"autocast": True}),
    ("batchtopk", {"autocast": True}),
    ("batchtopk", {}),
    ("matryoshka_batchtopk", {}),
]


def stepped(architecture: str, stepper: BatchedStepper, **parameters: Any) -> Member:
    config = small_config(architecture, **parameters)
    member = Member.from_source(config, SOURCE, 200 * SOURCE.batch_tokens)
    member.stepper = stepper
    for position in range(20):
        member.step(SOURCE.batch_at(position)[member.hook], position)
    return member


@pytest.mark.parametrize("kernels", ["cpp", "torch"])
@pytest.mark.parametrize(("architecture", "parameters"), SPARSE)
def test_numbers_equal_sae_lens_s(
    architecture: str, parameters: dict[str, Any], kernels: str
) -> None:
    if kernels == "cpp" and BatchedStepper(CPU).name != "batched/cpp":
        pytest.skip("no compiler here")
    member = stepped(architecture, BatchedStepper(CPU, kernels), **parameters)
    x_ND = SOURCE.held_out.activations(member.hook)
    assert member.stepper.forward_of(member) is not None
    ours = reconstruction_metrics(member_forward(member, exported=False), x_ND, 64)
    member.stepper = REFERENCE_STEPPER
    theirs = reconstruction_metrics(member_forward(member, exported=False), x_ND, 64)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert 0 < ours["l0"] < 64


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_dense_architectures_leave_it_to_sae_lens(architecture: str) -> None:
    stepper = BatchedStepper(CPU)
    assert stepper.forward_of(stepped(architecture, stepper)) is None


def test_another_member_may_step_meanwhile() -> None:
    stepper = BatchedStepper(CPU)
    member, other = stepped("topk", stepper), stepped("topk", stepper)
    x_ND = SOURCE.held_out.activations(member.hook)
    alone = reconstruction_metrics(member_forward(member, exported=False), x_ND, 64)
    stop = threading.Event()

    def train() -> None:
        position = 20
        while not stop.is_set():
            other.step(SOURCE.batch_at(position % 100)[other.hook], position)
            position += 1

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(20):
            again = reconstruction_metrics(member_forward(member, exported=False), x_ND, 64)
            assert again == alone
    finally:
        stop.set()
        thread.join()
