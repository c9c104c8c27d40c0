"""A condition is read where it says, decided when it says, and means what its operator says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from steering.edits import (
    Add,
    CastCondition,
    Condition,
    CosineCondition,
    ProbeCondition,
    When,
    steered,
)
from steering.errors import BadSteeringInput
from tests.steering.edits.examples import some_vector
from tests.steering.edits.models import HOOK, padded, some_rows, tiny_lm

EARLY = "resid_post.0"
C_D = some_vector(3)
ADD = Add(HOOK, some_vector())


def scores(condition: Condition, h_MD: Tensor) -> Tensor:
    return condition.score(h_MD, torch.zeros(len(h_MD), dtype=torch.long))


def test_the_scores_are_what_they_are_called() -> None:
    h_MD = some_vector(8, num_rows=7)
    cosine_M = torch.nn.functional.cosine_similarity(h_MD, C_D[None])
    torch.testing.assert_close(scores(CosineCondition(EARLY, C_D, 0.0), h_MD), cosine_M)
    projection_DD = torch.outer(C_D, C_D) / (C_D @ C_D)
    expected_M = torch.nn.functional.cosine_similarity(h_MD, (h_MD @ projection_DD).tanh())
    torch.testing.assert_close(scores(CastCondition(EARLY, C_D, 0.0), h_MD), expected_M)
    probe = ProbeCondition(EARLY, C_D, 0.0, bias=0.5)
    torch.testing.assert_close(scores(probe, h_MD), h_MD @ C_D + 0.5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("read", ["mean", "last"])
@pytest.mark.parametrize("op", ["sim_ge", "sim_lt"])
def test_prompts_are_judged_once_each_by_their_own_tokens(
    side: Literal["left", "right"], read: Any, op: Any
) -> None:
    lm, batch = tiny_lm(), padded(side)
    pooled = []
    for row in batch.rows:
        acts_TD = lm.activations(row[None], [EARLY])[EARLY][0]
        pooled.append(acts_TD[1:].mean(dim=0) if read == "mean" else acts_TD[-1])
    score_N = scores(CosineCondition(EARLY, C_D, 0.0), torch.stack(pooled))
    threshold = float(score_N.median())
    is_met_N = score_N > threshold - 1e-4 if op == "sim_ge" else score_N < threshold - 1e-4
    # The median row itself is at the threshold up to rounding: put it safely on one side.
    condition = CosineCondition(EARLY, C_D, threshold - 1e-4, op=op, read=read)
    plain = lm.forward(use_cache=False, **batch.inputs).logits
    with steered(lm, [When(ADD, condition)]):
        found = lm.forward(use_cache=False, **batch.inputs).logits
    with steered(lm, [ADD]):
        always = lm.forward(use_cache=False, **batch.inputs).logits
    assert 0 < int(is_met_N.sum()) < 3
    expected = torch.where(is_met_N[:, None, None], always, plain)
    for own, own_expected in zip(batch.own(found), batch.own(expected), strict=True):
        torch.testing.assert_close(own, own_expected, atol=1e-4, rtol=1e-4)


def test_what_was_decided_on_the_prompt_holds_for_the_answer() -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((9, 9)))
    acts = lm.activations(ids_NT[:, :5], [EARLY])[EARLY][:, 1:].mean(dim=1)
    score_N = scores(CosineCondition(EARLY, C_D, 0.0), acts)
    condition = CosineCondition(EARLY, C_D, float(score_N.mean()))
    edit = When(replace(ADD, positions="generated"), condition)
    cache = DynamicCache(config=lm.model.config)
    plain = lm.logits(ids_NT)
    with steered(lm, [edit]):
        parts = [
            lm.forward(input_ids=step, past_key_values=cache).logits
            for step in (ids_NT[:, :5], *ids_NT[:, 5:].unsqueeze(-1).unbind(dim=1))
        ]
    is_changed_N = ((torch.cat(parts, dim=1) - plain).abs() > 1e-2).any(dim=-1)[:, 5:].any(dim=1)
    assert torch.equal(is_changed_N, score_N >= score_N.mean())


def test_a_batch_that_loses_rows_keeps_each_rows_decision() -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((9, 9, 9)))
    vectors_ND = torch.stack([C_D, -C_D, C_D])
    # Row-wise thresholds: rows 0 and 2 never hold, row 1 always does.
    condition = CosineCondition(EARLY, vectors_ND, torch.tensor([2.0, -2.0, 2.0]))
    cache = DynamicCache(config=lm.model.config)
    with steered(lm, [When(ADD, condition)]) as steering:
        lm.forward(input_ids=ids_NT[:, :8], past_key_values=cache)
        kept = torch.tensor([2, 1])
        cache.batch_select_indices(kept)
        steering.keep(kept)
        found = lm.forward(input_ids=ids_NT[kept, 8:], past_key_values=cache).logits
    plain = lm.logits(ids_NT)[kept, 8:]
    is_changed_N = ((found - plain).abs() > 1e-2).any(dim=-1).any(dim=-1)
    assert is_changed_N.tolist() == [False, True]


def test_tokens_are_judged_each_by_itself() -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((8, 8)))
    acts = lm.activations(ids_NT, [HOOK])[HOOK]
    condition = ProbeCondition(HOOK, C_D, 0.0, op="sim_lt", decided="token")
    with steered(lm, [When(ADD, condition)]):
        found = lm.activations(ids_NT, [HOOK])[HOOK]
    is_met_NT = (acts @ C_D < 0) & (torch.arange(8) > 0)
    assert torch.equal((found != acts).any(dim=-1), is_met_NT)
    assert 0 < int(is_met_NT.sum()) < 14


def test_nested_conditions_must_all_hold() -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((8, 8)))
    acts = lm.activations(ids_NT, [HOOK])[HOOK]
    below = ProbeCondition(HOOK, C_D, 0.0, op="sim_lt", decided="token")
    above = ProbeCondition(EARLY, C_D, 0.0, decided="token")
    with steered(lm, [When(When(ADD, below), above)]):
        found = lm.activations(ids_NT, [HOOK])[HOOK]
    early = lm.activations(ids_NT, [EARLY])[EARLY]
    is_met_NT = (acts @ C_D < 0) & (early @ C_D >= 0) & (torch.arange(8) > 0)
    assert torch.equal((found != acts).any(dim=-1), is_met_NT)


def test_a_condition_behind_its_edit_is_refused() -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((8,)))
    late = When(ADD, CosineCondition("resid_post.2", C_D, 0.0))
    with (
        pytest.raises(BadSteeringInput, match="read it no later in the model than"),
        steered(lm, [late]),
    ):
        lm.logits(ids_NT)


def test_a_prompt_that_was_not_seen_cannot_be_judged() -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((8,)))
    cache = DynamicCache(config=lm.model.config)
    lm.forward(input_ids=ids_NT[:, :7], past_key_values=cache)
    condition = CosineCondition(EARLY, C_D, 0.0)
    with (
        pytest.raises(BadSteeringInput, match="let the prompt itself run within"),
        steered(lm, [When(ADD, condition)]),
    ):
        lm.forward(input_ids=ids_NT[:, 7:], past_key_values=cache)


def test_operators_and_moments_have_names() -> None:
    settings: dict[str, Any] = {"op": "larger", "decided": "always", "read": "max"}
    for name, value in settings.items():
        with pytest.raises(BadSteeringInput, match=f"{name}='{value}' is unknown; known: "):
            CosineCondition(EARLY, C_D, 0.0, **{name: value})
    with pytest.raises(BadSteeringInput, match="a vector of zeros has no direction"):
        CastCondition(EARLY, 0 * C_D, 0.0)
