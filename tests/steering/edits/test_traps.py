"""Traps that published steering code fell into, as far as edits and hooks can fall into them.

Numbers are those of section 2.3 of the survey of steering libraries that this project started from.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from steering.edits import Add, CosineCondition, When, steered
from steering.errors import BadSteeringInput
from tests.sae.tiny_model import ALL_FAMILIES, D_MODEL, NUM_LAYERS, Family
from tests.steering.edits.examples import some_vector
from tests.steering.edits.models import HOOK, padded, some_rows, tiny_lm

every_family = pytest.mark.parametrize("family", ALL_FAMILIES)
V_D = some_vector()


def ids(num_rows: int = 2, num_tokens: int = 7) -> Tensor:
    return torch.stack(some_rows((num_tokens,) * num_rows))


@every_family
def test_trap_3_what_is_read_at_a_hook_is_what_is_written_there(family: Family) -> None:
    """IBM reads behind block l and adds before it; Konen reads a residual and adds to an MLP."""
    lm, ids_NT = tiny_lm(family), ids()
    states = lm.model(ids_NT, output_hidden_states=True).hidden_states
    for layer in range(NUM_LAYERS):
        for hook in (f"resid_pre.{layer}", f"attn_out.{layer}", f"mlp_out.{layer}"):
            before = lm.activations(ids_NT, [hook])[hook]
            with steered(lm, [Add(hook, V_D)]):
                after = lm.activations(ids_NT, [hook])[hook]
            torch.testing.assert_close(after[:, 1:], before[:, 1:] + V_D)
        pre = f"resid_pre.{layer}"
        assert torch.equal(lm.activations(ids_NT, [pre])[pre], states[layer])


@every_family
def test_trap_3_before_a_block_is_behind_the_one_before_it(family: Family) -> None:
    lm, ids_NT = tiny_lm(family), ids()
    for layer in range(1, NUM_LAYERS):
        with steered(lm, [Add(f"resid_pre.{layer}", V_D)]):
            before = lm.logits(ids_NT)
        with steered(lm, [Add(f"resid_post.{layer - 1}", V_D)]):
            assert torch.equal(lm.logits(ids_NT), before)
        with steered(lm, [Add(f"resid_post.{layer}", V_D)]):
            assert not torch.allclose(lm.logits(ids_NT), before, atol=1e-3)


@every_family
def test_trap_3_writing_changes_exactly_what_is_behind_it(family: Family) -> None:
    """An addition to a sublayer's output reaches the residual stream as it is."""
    lm, ids_NT = tiny_lm(family), ids()
    hooks = ["resid_pre.1", "attn_out.1", "mlp_out.1", "resid_post.1"]
    plain = lm.activations(ids_NT, hooks)
    with steered(lm, [Add("mlp_out.1", V_D)]):
        found = lm.activations(ids_NT, hooks)
    for hook in hooks[:2]:
        assert torch.equal(found[hook], plain[hook])
    torch.testing.assert_close(
        found["resid_post.1"][:, 1:], plain["resid_post.1"][:, 1:] + V_D, atol=1e-4, rtol=1e-4
    )
    assert torch.equal(found["resid_post.1"][:, 0], plain["resid_post.1"][:, 0])


@every_family
def test_trap_3_the_first_blocks_input_is_the_residual_stream_too(family: Family) -> None:
    """Gemma's embedding is scaled behind its lookup: added there, a vector would be scaled too."""
    lm, ids_NT = tiny_lm(family), ids()
    expected = lm.model(ids_NT, output_hidden_states=True).hidden_states[0]
    with steered(lm, [Add("resid_pre.0", V_D)]):
        states = lm.model(ids_NT, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[0][:, 1:], expected[:, 1:] + V_D)


def test_trap_4_every_row_of_a_batch_is_steered() -> None:
    """IBM: `hidden_states[0] = op(hidden_states[0])`."""
    lm, ids_NT = tiny_lm(), ids(4)
    with steered(lm, [Add(HOOK, V_D)]):
        acts = lm.activations(ids_NT, [HOOK])[HOOK]
    assert (acts != _plain(ids_NT)).any(dim=-1)[:, 1:].all()


def test_trap_4_two_models_in_one_process_have_their_own_conditions() -> None:
    """IBM keeps `condition_met` on the class."""
    one, other, ids_NT = tiny_lm(), tiny_lm(seed=1), ids()
    holds = When(Add(HOOK, V_D), CosineCondition("resid_post.0", V_D, -2.0))
    fails = When(Add(HOOK, V_D), CosineCondition("resid_post.0", V_D, 2.0))
    plain = [one.logits(ids_NT), other.logits(ids_NT)]
    with steered(one, [holds]), steered(other, [fails]):
        found = [one.logits(ids_NT), other.logits(ids_NT)]
    assert not torch.equal(found[0], plain[0])
    assert torch.equal(found[1], plain[1])


def test_trap_5_an_operator_says_which_side_it_fires_on() -> None:
    """IBM's "larger" fires where the similarity is smaller; its two manuals disagree."""
    lm, ids_NT = tiny_lm(), ids()
    similar = lm.activations(ids_NT, ["resid_post.0"])["resid_post.0"][0, 1:].mean(dim=0)
    for op, fires in (("sim_ge", True), ("sim_lt", False)):
        condition = CosineCondition("resid_post.0", similar, 0.99, op=op)  # type: ignore[arg-type]
        with steered(lm, [When(Add(HOOK, V_D), condition)]):
            acts = lm.activations(ids_NT[:1], [HOOK])[HOOK]
        assert torch.equal(acts, _plain(ids_NT[:1])) is not fires


def test_trap_7_positions_are_absolute_with_a_kv_cache() -> None:
    """steering-vectors 60: after the prompt a pass has one token, at index 0."""
    lm, ids_NT = tiny_lm(), ids(2, 8)

    def third_and_seventh(position_NT: Tensor) -> Tensor:
        return (position_NT == 3) | (position_NT == 7)

    edit = Add(HOOK, V_D, positions=third_and_seventh)
    with steered(lm, [edit]):
        whole = lm.logits(ids_NT)
    cache = DynamicCache(config=lm.model.config)
    with steered(lm, [edit]):
        edited = [
            lm.forward(input_ids=step, past_key_values=cache).logits
            for step in (ids_NT[:, :5], *ids_NT[:, 5:].unsqueeze(-1).unbind(dim=1))
        ]
    torch.testing.assert_close(torch.cat(edited, dim=1), whole, atol=1e-4, rtol=1e-4)


def test_trap_7_positions_hold_under_transformers_own_generate() -> None:
    lm, batch = tiny_lm(), padded("left")
    seen: list[Tensor] = []

    def note(position_NT: Tensor) -> Tensor:
        seen.append(position_NT.clone())
        return torch.zeros_like(position_NT, dtype=torch.bool)

    with steered(lm, [Add(HOOK, V_D, positions=note)]):
        lm.model.generate(
            input_ids=batch.ids_NT,
            attention_mask=batch.mask_NT,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            pad_token_id=1,
        )
    assert [p.shape[1] for p in seen] == [9, 1, 1]
    assert seen[0][:, -1].tolist() == [8, 4, 6]
    assert [p[:, 0].tolist() for p in seen[1:]] == [[9, 5, 7], [10, 6, 8]]


def test_trap_10_a_vector_is_added_once_and_only_where_it_was_asked_for() -> None:
    """A CAA wrapper returned `augmented_output + add_activations`: twice, at all positions."""
    lm, ids_NT = tiny_lm(), ids()
    with steered(lm, [Add(HOOK, V_D, positions="last")]):
        acts = lm.activations(ids_NT, [HOOK])[HOOK]
    expected = _plain(ids_NT)
    expected[:, -1] += V_D
    torch.testing.assert_close(acts, expected)


@every_family
def test_trap_11_left_padding_without_position_ids_is_refused(family: Family) -> None:
    """nnsight 672: one token of padding moves GPT-2's next-token distribution."""
    lm, batch = tiny_lm(family), padded("left")
    with steered(lm, [Add(HOOK, V_D)]):
        with pytest.raises(BadSteeringInput, match="padded on the left and has no position_ids"):
            lm.forward(input_ids=batch.ids_NT, attention_mask=batch.mask_NT)
        found = lm.forward(**batch.inputs, use_cache=False).logits
        for row, own_TV in zip(batch.rows, batch.own(found), strict=True):
            torch.testing.assert_close(own_TV, lm.logits(row[None])[0], atol=2e-4, rtol=2e-4)
        right = padded("right")
        lm.forward(input_ids=right.ids_NT, attention_mask=right.mask_NT)


def _plain(ids_NT: Tensor) -> Tensor:
    acts = tiny_lm().activations(ids_NT, [HOOK])[HOOK].clone()
    assert acts.shape[-1] == D_MODEL
    return acts
