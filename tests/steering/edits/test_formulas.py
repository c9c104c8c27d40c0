"""Each edit computes the formula it names; rival packages are given the same model and vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steering.edits import Add, Clamp, Edit, MeanAblate, ProjectOut, steered
from steering.errors import BadSteeringInput
from tests.sae.tiny_model import D_MODEL
from tests.steering.edits.examples import some_vector
from tests.steering.edits.models import HOOK, some_rows, tiny_lm

V_D = some_vector()
W_D = V_D / V_D.norm()


def before_and_after(edit: Edit) -> tuple[Tensor, Tensor]:
    """Activations [tokens, D] at the hook, BOS left out."""
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((6, 6)))
    before = lm.activations(ids_NT, [HOOK])[HOOK]
    with steered(lm, [edit]):
        after = lm.activations(ids_NT, [HOOK])[HOOK]
    return before[:, 1:].reshape(-1, D_MODEL), after[:, 1:].reshape(-1, D_MODEL)


def test_add() -> None:
    h_MD, found_MD = before_and_after(Add(HOOK, V_D, strength=0.5))
    torch.testing.assert_close(found_MD, h_MD + 0.5 * V_D)


def test_norm_preserving_add_is_repengs() -> None:
    h_MD, found_MD = before_and_after(Add(HOOK, V_D, preserve_norm=True))
    added_MD = h_MD + V_D
    expected_MD = added_MD / added_MD.norm(dim=-1, keepdim=True) * h_MD.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found_MD, expected_MD)


def test_a_vector_that_cancels_the_activation_keeps_its_zero_norm() -> None:
    h_MD, _ = before_and_after(Add(HOOK, V_D))
    edit = Add(HOOK, -h_MD[0], preserve_norm=True)
    changed_MD = edit.change(h_MD[:1], torch.zeros(1, dtype=torch.long), torch.tensor(1.0))
    assert torch.equal(changed_MD, torch.zeros_like(changed_MD))


def test_projecting_out_leaves_nothing_along_the_direction() -> None:
    h_MD, found_MD = before_and_after(ProjectOut(HOOK, V_D))
    torch.testing.assert_close(found_MD, h_MD - (h_MD @ W_D)[:, None] * W_D)
    assert (found_MD @ W_D).abs().max() < 1e-4
    _, again_MD = before_and_after(ProjectOut(HOOK, V_D, addition=3 * W_D))
    torch.testing.assert_close(again_MD @ W_D, torch.full((len(h_MD),), 3.0), atol=1e-4, rtol=1e-4)


def test_clamping_is_axbenchs_subspace_intervention() -> None:
    h_MD, found_MD = before_and_after(Clamp(HOOK, V_D, 2.5))
    expected_MD = h_MD - (h_MD @ W_D).relu()[:, None] * W_D + 2.5 * W_D
    torch.testing.assert_close(found_MD, expected_MD)
    assert (h_MD @ W_D < 0).any(), "a negative component is kept, as there"


@pytest.mark.parametrize(
    ("kind", "bound"), [("at_least", torch.maximum), ("at_most", torch.minimum)]
)
def test_bounds_change_only_what_is_beyond_them(kind: Any, bound: Any) -> None:
    h_MD, _ = before_and_after(Add(HOOK, V_D))
    value = float((h_MD @ W_D).mean())
    h_MD, found_MD = before_and_after(Clamp(HOOK, V_D, value, kind))
    expected_M = bound(h_MD @ W_D, torch.tensor(value))
    torch.testing.assert_close(found_MD @ W_D, expected_M, atol=1e-4, rtol=1e-4)
    is_within_M = expected_M == h_MD @ W_D
    assert 0 < int(is_within_M.sum()) < len(h_MD)
    assert torch.equal(found_MD[is_within_M], h_MD[is_within_M])


def test_mean_ablation_puts_the_mean_there() -> None:
    h_MD, found_MD = before_and_after(MeanAblate(HOOK, V_D))
    torch.testing.assert_close(found_MD, V_D.expand_as(h_MD))


@pytest.mark.parametrize("operator", ["addition", "ablation", "ablation_then_addition"])
def test_the_steering_vectors_package_agrees(operator: str) -> None:
    from steering_vectors import (
        SteeringVector,
        ablation_operator,
        ablation_then_addition_operator,
        addition_operator,
    )

    lm, ids_NT = tiny_lm(), torch.stack(some_rows((6, 6), bos=False))
    operators = {
        "addition": (addition_operator(), Add(HOOK, V_D)),
        "ablation": (ablation_operator(), ProjectOut(HOOK, V_D)),
        "ablation_then_addition": (
            ablation_then_addition_operator(),
            ProjectOut(HOOK, V_D, addition=V_D),
        ),
    }
    theirs, ours = operators[operator]
    vector = SteeringVector(layer_activations={1: V_D}, layer_type="decoder_block")
    with vector.apply(lm.model, operator=theirs), torch.no_grad():
        expected = lm.model(ids_NT).logits
    with steered(lm, [ours]):
        torch.testing.assert_close(lm.logits(ids_NT), expected, atol=1e-4, rtol=1e-4)


def test_repeng_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    from repeng import ControlModel, ControlVector

    lm, ids_NT = tiny_lm(), torch.stack(some_rows((6, 6), bos=False))
    position_NT = torch.arange(6).expand(2, 6)
    vector = ControlVector(model_type="llama", directions={1: V_D.numpy()})
    control = ControlModel(lm.model, [1])
    try:
        for normalize in (False, True):
            control.set_control(vector, coeff=0.5, normalize=normalize)
            with torch.no_grad():
                expected = control(input_ids=ids_NT, position_ids=position_NT).logits
            control.reset()
            ours = Add(HOOK, V_D, strength=0.5, preserve_norm=normalize)
            with steered(lm, [ours]):
                found = lm.logits(ids_NT)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    finally:
        control.unwrap()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Add(HOOK, V_D[None, None]), r"shape \[1, 1, 32\]; give \[D\], or \[N, D\]"),
        (lambda: Add(HOOK, V_D * torch.nan), "vector holds NaN or infinity"),
        (lambda: Add(HOOK, [1.0]), "vector is a list; give a torch tensor"),  # type: ignore[arg-type]
        (lambda: Add(HOOK, V_D, strength=torch.ones(2, 2)), "give a number, or"),
        (lambda: Add(HOOK, V_D.expand(2, -1), strength=torch.ones(3)), "different numbers of rows"),
        (lambda: ProjectOut(HOOK, 0 * V_D), "a vector of zeros has no direction"),
        (lambda: ProjectOut(HOOK, V_D, addition=V_D[:3]), "widths 32 and 3"),
        (lambda: Clamp(HOOK, V_D, 1.0, "above"), "known: set, at_least, at_most"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, message: str) -> None:
    with pytest.raises(BadSteeringInput, match=message):
        make()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Add(HOOK, V_D[:8]), "width 8, and 'resid_post.1' has 32; take a vector or SAE of this"),
        (Add(HOOK, V_D, positions="answer"), "known: all, prompt, generated, last, or a func"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_the_model_is_refused(edit: Edit, message: str) -> None:
    with pytest.raises(BadSteeringInput, match=message), steered(tiny_lm(), [edit]):
        tiny_lm().logits(torch.stack(some_rows((4,))))
