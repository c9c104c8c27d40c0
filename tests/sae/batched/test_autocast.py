"""With autocast, members' steps are those that sae_lens's trainer takes under torch's autocast."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from sae.batched.backend import BatchedStepper
from tests.sae.batched.autocast_rival import Bounds, Step, distances, faults, our_steps, their_steps
from tests.sae.batched.mutations import MUTATIONS
from tests.sae.batched.parity_cases import CASES, Life
from tests.sae.batched.test_parity import STEPPED_BY_SAE_LENS

CPU = torch.device("cpu")
BY_HAND = sorted(set(CASES) - STEPPED_BY_SAE_LENS)
QUICK = {"topk-mixed", "batchtopk", "matryoshka-widths", "standard", "jumprelu", "gated"}
"""One case an architecture."""

WHERE_IT_ROUNDS = Bounds(firing=0.0, gradient=0.05, slope=5e-4, update=1e-3, loss=3e-5)
"""torch's kernels round where sae_lens does: pre-activations are equal bit for bit, and so is what
fires. What is left is whether sums are rounded before they are added up or after."""
ELSEWHERE = Bounds(firing=1e-3, gradient=0.1, slope=2e-3, update=5e-3, loss=1e-2)
"""Levels are decoded one by one, a gated SAE's magnitudes come from the gate's product, and C++
adds up in float32 what sae_lens has rounded, and picks others of equals."""
NO_FARTHER = 1.1
"""Than sae_lens without autocast, whose median distance is bfloat16's rounding."""


BELOW_ROUNDING = {"epsilon of 1e-6"}
"""Wrong terms that are noticed in float64 and float32 alone."""


def bounds_of(case: str, kernels: str) -> Bounds:
    dense = case.startswith(("standard", "jumprelu"))
    ranked = case.startswith(("topk", "batchtopk")) and kernels == "torch"
    return WHERE_IT_ROUNDS if dense or ranked else ELSEWHERE


@cache
def lives_of(case: str) -> dict[str, Life]:
    return {
        name: replace(life, config=life.config.model_copy(update={"autocast": True}))
        for name, life in CASES[case].lives("float32")
    }


@cache
def taken(case: str, kernels: str) -> list[Step]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAEQ_KERNELS", kernels)
        return our_steps(lives_of(case))


def _cases(quick: set[str]) -> list[object]:
    return [
        case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in BY_HAND
    ]


def check(case: str, kernels: str) -> None:
    ours = taken(case, kernels)
    assert {step.name for step in ours} == set(lives_of(case))
    theirs = their_steps(lives_of(case), ours)
    assert faults(ours, theirs, bounds_of(case, kernels)) == []
    exact = their_steps(lives_of(case), ours, exact=True)
    rounding = distances(exact, theirs)
    for name, distance in distances(ours, theirs).items():
        assert distance <= NO_FARTHER * rounding[name], name


@pytest.mark.parametrize("case", _cases(QUICK))
def test_each_step_is_sae_lens_s(case: str) -> None:
    check(case, "torch")


@pytest.mark.parametrize("case", _cases({"topk-mixed"}))
def test_each_step_by_the_kernels_in_cpp_is_sae_lens_s(case: str) -> None:
    if BatchedStepper(CPU).name != "batched/cpp":
        pytest.skip("no compiler here")
    check(case, "cpp")


@pytest.mark.parametrize("case", ["topk", "standard"])
def test_a_step_without_autocast_is_not_that_step(case: str) -> None:
    """Else the bounds would hold for any rounding."""
    ours = taken(case, "torch")
    theirs = their_steps(lives_of(case), ours)
    exact = their_steps(lives_of(case), ours, exact=True)
    assert faults(exact, theirs, bounds_of(case, "torch"))


def test_a_gated_gate_rounds_where_sae_lens_does() -> None:
    """Its magnitudes do not, which the bounds allow for."""
    ours = taken("gated", "torch")
    apart = distances(ours, their_steps(lives_of("gated"), ours))
    assert apart["b_gate"] < 1e-6 < apart["b_mag"]


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, each in MUTATIONS.items()
        if each.case in BY_HAND and name not in BELOW_ROUNDING
    ),
)
def test_a_step_with_a_wrong_term_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = MUTATIONS[name]
    ours = taken(mutation.case, "torch")
    mutation.apply(monkeypatch)
    theirs = their_steps(lives_of(mutation.case), ours)
    assert faults(ours, theirs, bounds_of(mutation.case, "torch"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["triton", "torch"])
@pytest.mark.parametrize("case", sorted(QUICK))
def test_each_step_on_cuda_is_sae_lens_s(
    case: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setenv("SAEQ_KERNELS", kernels)
    ours = our_steps(lives_of(case), "cuda")
    theirs = their_steps(lives_of(case), ours, "cuda")
    assert faults(ours, theirs, ELSEWHERE) == []
