"""Members stepped together are the SAEs that sae_lens's `SAETrainer.step` trains one by one."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from sae.architectures import by_architecture
from sae.batched.backend import BatchedBackend, family_of
from sae.step_backend import ReferenceBackend, StepBackend
from tests.sae.batched.parity_cases import CASES, Life
from tests.sae.batched.rival import Ran, differences, run_bare, run_group

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
LOSS_TOLERANCE = {"float64": 3e-7, "float32": 1e-4}
"""A member's tally keeps losses in float32."""

STEPPED_BY_SAE_LENS = {"standard-l2"}
"""Cases that nobody has written gradients for: the batched backend must see that, too."""


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("torch", "reference")]


@pytest.fixture(params=["cpp", *SLOW])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StepBackend:
    if request.param == "reference":
        return ReferenceBackend()
    if request.param == "torch":
        monkeypatch.setenv("SAEQ_KERNELS", "torch")
    return BatchedBackend()


@cache
def lives_of(case: str, dtype: str) -> dict[str, Life]:
    return dict(CASES[case].lives(dtype))


@cache
def trained_alone(case: str, dtype: str) -> dict[str, Ran]:
    return {name: run_bare(life) for name, life in lives_of(case, dtype).items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", sorted(CASES))
def test_fifty_steps_together_are_fifty_steps_alone(
    backend: StepBackend, case: str, dtype: str
) -> None:
    ours = run_group(backend, lives_of(case, dtype))
    found = {
        name: differences(
            ours[name], alone, tolerance=TOLERANCE[dtype], loss_tolerance=LOSS_TOLERANCE[dtype]
        )
        for name, alone in trained_alone(case, dtype).items()
    }
    assert not any(found.values()), found


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_batched_backend_does_not_leave_a_case_to_sae_lens(case: str) -> None:
    """Else parity would be shown of sae_lens with itself."""
    by_hand = [family_of(life.config) is not None for life in lives_of(case, "float32").values()]
    assert by_hand == [case not in STEPPED_BY_SAE_LENS] * len(by_hand)


def test_every_architecture_has_a_case() -> None:
    assert {case.architecture for case in CASES.values()} == set(by_architecture)


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_cases_reach_the_terms_that_only_sometimes_count(case: str) -> None:
    """Else parity would be shown of a step that is only half run."""
    lives, alone = lives_of(case, "float64"), trained_alone(case, "float64")
    for name, life in lives.items():
        weight = max(
            getattr(life.config, field, None) or 0.0
            for field in ("aux_loss_coefficient", "pre_act_loss_coefficient")
        )
        if life.depth and weight:
            assert max(alone[name].aux_losses) > 0, name
        assert all(torch.isfinite(value).all() for value in alone[name].state.values()), name


@pytest.mark.parametrize("case", ["topk-mixed", "standard-mixed"])
def test_gradients_are_sometimes_clipped_and_sometimes_not(case: str) -> None:
    norms: list[float] = []
    clip: Any = torch.nn.utils.clip_grad_norm_

    def noted(parameters: Any, max_norm: float) -> Any:
        norm = clip(parameters, max_norm)
        norms.append(float(norm) / max_norm)
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.utils.clip_grad_norm_", noted)
        for life in lives_of(case, "float64").values():
            run_bare(life)
    assert sum(norm > 1 for norm in norms) > 20
    assert sum(norm < 1 for norm in norms) > 20
