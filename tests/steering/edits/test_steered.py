"""The context of edits: which passes it knows, whom it locks out, what it runs beside."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import Thread
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from steering.edits import Add, Between, Edit, ProjectOut, steered
from steering.errors import BadSteeringInput
from tests.sae.tiny_model import build_tiny_model
from tests.steering.edits.examples import some_vector
from tests.steering.edits.models import HOOK, padded, some_rows, tiny_lm

V_D = some_vector()
IDS = torch.stack(some_rows((7, 7)))


def test_a_range_of_positions_is_a_predicate() -> None:
    position_NT = torch.arange(5).expand(2, 5)
    assert Between(1, 3)(position_NT)[0].tolist() == [False, True, True, False, False]
    assert Between(3)(position_NT)[1].tolist() == [False, False, False, True, True]


def test_entered_behind_the_prompt_everything_is_generated() -> None:
    lm, cache = tiny_lm(), DynamicCache(config=tiny_lm().model.config)
    seen: list[torch.Tensor] = []
    lm.forward(input_ids=IDS[:, :5], past_key_values=cache)
    with steered(lm, [Add(HOOK, V_D, positions="generated")]), lm.hooked([(HOOK, seen.append)]):
        lm.forward(input_ids=IDS[:, 5:6], past_key_values=cache)
    torch.testing.assert_close(seen[0][:, 0], lm.activations(IDS, [HOOK])[HOOK][:, 5] + V_D)


def test_a_new_prompt_begins_where_nothing_is_cached() -> None:
    lm, lengths = tiny_lm(), (7, 4)
    with steered(lm, [Add(HOOK, V_D, positions="last")]):
        found = [lm.activations(IDS[:, :length], [HOOK])[HOOK] for length in lengths]
    for length, acts in zip(lengths, found, strict=True):
        expected = lm.activations(IDS[:, :length], [HOOK])[HOOK].clone()
        expected[:, -1] += V_D
        torch.testing.assert_close(acts, expected)


def test_embeddings_instead_of_ids_have_positions_too() -> None:
    lm = tiny_lm()
    embedded = lm.model.get_input_embeddings()(IDS)
    edit = Add(HOOK, V_D, positions=Between(2, 4))
    with steered(lm, [edit]):
        found = lm.forward(inputs_embeds=embedded, use_cache=False).logits
        torch.testing.assert_close(found, lm.logits(IDS))


def test_masks_of_another_shape_are_refused() -> None:
    lm, batch = tiny_lm(), padded("right")
    four_d = torch.zeros((3, 1, 9, 9))
    with (
        steered(lm, [Add(HOOK, V_D)]),
        pytest.raises(BadSteeringInput, match=r"attention_mask is \[3, 1, 9, 9\].*\[3, 9\]"),
    ):
        lm.forward(input_ids=batch.ids_NT, attention_mask=four_d)


def test_prompt_lengths_of_another_batch_are_refused() -> None:
    lm = tiny_lm()
    with (
        steered(lm, [Add(HOOK, V_D)], prompt_lengths=torch.tensor([3])),
        pytest.raises(BadSteeringInput, match="known for 1 rows, and the batch has 2"),
    ):
        lm.logits(IDS)


def test_right_padded_passes_without_a_mask_need_prompt_lengths_for_the_last_token() -> None:
    lm, batch = tiny_lm(), padded("right")
    lengths_N = batch.mask_NT.sum(dim=1)
    with steered(lm, [Add(HOOK, V_D, positions="last")], prompt_lengths=lengths_N):
        acts = lm.activations(batch.ids_NT, [HOOK])[HOOK]
    expected = lm.activations(batch.ids_NT, [HOOK])[HOOK].clone()
    expected[torch.arange(3), lengths_N - 1] += V_D
    torch.testing.assert_close(acts, expected)


def test_other_threads_wait_and_are_not_steered() -> None:
    lm, plain = tiny_lm(), tiny_lm().logits(IDS)
    found: list[torch.Tensor] = []
    thread = Thread(target=lambda: found.append(lm.logits(IDS)))
    with steered(lm, [Add(HOOK, V_D)]):
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
        assert not torch.equal(lm.logits(IDS), plain)
    thread.join(timeout=60)
    assert torch.equal(found[0], plain)


def test_edits_let_gradients_through() -> None:
    lm, v_D = tiny_lm(), V_D.clone().requires_grad_()
    with steered(lm, [Add(HOOK, v_D), ProjectOut("resid_post.0", v_D)]):
        lm.model(IDS).logits[:, -1].logsumexp(dim=-1).sum().backward()
    assert v_D.grad is not None
    assert v_D.grad.abs().max() > 0


def test_compiled_blocks_are_edited_like_others(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_runs: list[int] = []

    def compile_nothing(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            num_runs.append(1)
            return forward(*args, **kwargs)

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    folder = str(build_tiny_model(tmp_path))
    plain = LanguageModel.load(ModelSpec(name=folder), "cpu")
    compiled = LanguageModel.load(ModelSpec(name=folder, compile=True), "cpu")
    edits: list[Edit] = [Add(HOOK, V_D), Add("resid_pre.0", V_D)]
    with steered(plain, edits), steered(compiled, edits):
        assert torch.equal(compiled.logits(IDS), plain.logits(IDS))
        assert len(num_runs) == 3
        with compiled.uncompiled():
            assert torch.equal(compiled.logits(IDS), plain.logits(IDS))
        assert len(num_runs) == 3
        compiled.logits(IDS)
        assert len(num_runs) == 6
    with compiled.uncompiled(), steered(compiled, [Add("mlp_out.1", V_D)]):
        compiled.logits(IDS)
    compiled.logits(IDS)
    assert len(num_runs) == 8, "a block that is hooked inside stays as it is"
