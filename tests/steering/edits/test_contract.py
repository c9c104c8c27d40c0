"""What holds for every edit, found by being there, in every family of models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from sae.language_model import LanguageModel
from steering.edits import AnyEdit, Edit, When, steered
from tests.sae.tiny_model import ALL_FAMILIES, Family
from tests.steering.edits.examples import EXAMPLES, example, some_vector
from tests.steering.edits.models import HOOK, num_hooks, padded, some_rows, tiny_lm

SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")

every_edit = pytest.mark.parametrize("name", EXAMPLES)
every_family = pytest.mark.parametrize("family", ALL_FAMILIES)
every_side = pytest.mark.parametrize("side", SIDES)


def logits(lm: LanguageModel, edits: list[AnyEdit], **inputs: Any) -> Tensor:
    with steered(lm, edits):
        found: Tensor = lm.forward(use_cache=False, **inputs).logits
    return found


def at_positions(edit: AnyEdit, positions: Any) -> AnyEdit:
    if isinstance(edit, When):
        inner = at_positions(edit.edit, positions)
        return When(inner, edit.condition)
    return replace(edit, positions=positions)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@every_edit
@every_family
def test_strength_0_is_no_edit_to_the_bit(name: str, family: Family) -> None:
    lm, batch = tiny_lm(family), padded("left")
    plain = logits(lm, [], **batch.inputs)
    assert torch.equal(logits(lm, [EXAMPLES[name].with_strength(0.0)], **batch.inputs), plain)
    assert torch.equal(
        logits(lm, [EXAMPLES[name].with_strength(torch.zeros(3))], **batch.inputs), plain
    )
    assert not torch.equal(logits(lm, [EXAMPLES[name]], **batch.inputs), plain)


@every_edit
@every_family
@every_side
def test_a_batch_equals_its_rows_alone(
    name: str, family: Family, side: Literal["left", "right"]
) -> None:
    lm, batch = tiny_lm(family), padded(side)
    together = batch.own(logits(lm, [EXAMPLES[name]], **batch.inputs))
    plain = batch.own(logits(lm, [], **batch.inputs))
    for row, own_TV, plain_TV in zip(batch.rows, together, plain, strict=True):
        close(own_TV, logits(lm, [EXAMPLES[name]], input_ids=row[None])[0])
        if isinstance(EXAMPLES[name], Edit):
            assert (own_TV - plain_TV).abs().max() > 1e-2, "a row of the batch is not steered"


@every_edit
@pytest.mark.parametrize(
    ("family", "positions"),
    [("gpt2", "all"), ("gemma2", "prompt"), ("mistral", "last")]
    + [(family, "generated") for family in ALL_FAMILIES],
)
def test_with_cache_equals_without(name: str, family: Family, positions: Any) -> None:
    lm, edit = tiny_lm(family), at_positions(EXAMPLES[name], positions)
    ids_NT, num_prompt = torch.stack(some_rows((9, 9))), 5
    with steered(lm, [edit], prompt_lengths=torch.full((2,), num_prompt)):
        whole = lm.forward(input_ids=ids_NT, use_cache=False).logits
    cache = DynamicCache(config=lm.model.config)
    with steered(lm, [edit]):
        steps = [ids_NT[:, :num_prompt], *ids_NT[:, num_prompt:].unsqueeze(-1).unbind(dim=1)]
        parts = [lm.forward(input_ids=step, past_key_values=cache).logits for step in steps]
    close(torch.cat(parts, dim=1), whole)


@every_edit
@every_side
@pytest.mark.parametrize("positions", ["prompt", "generated", "last", "predicate"])
def test_only_the_chosen_tokens_change(
    name: str, side: Literal["left", "right"], positions: str
) -> None:
    lm, batch = tiny_lm(), padded(side)
    length_N = torch.tensor([6, 2, 4])

    def is_odd(position_NT: Tensor) -> Tensor:
        return position_NT % 2 == 1

    edit = at_positions(EXAMPLES[name], is_odd if positions == "predicate" else positions)
    with lm.hooked([(HOOK, seen := Seen())]):
        logits(lm, [], **batch.inputs)
    with steered(lm, [edit], prompt_lengths=length_N), lm.hooked([(HOOK, edited := Seen())]):
        lm.forward(use_cache=False, **batch.inputs)
    changed_NT = (edited.acts_NTD != seen.acts_NTD).any(dim=-1)
    position_NT = batch.inputs["position_ids"]
    expected_NT = {
        "prompt": position_NT < length_N[:, None],
        "generated": position_NT >= length_N[:, None],
        "last": position_NT == length_N[:, None] - 1,
        "predicate": is_odd(position_NT),
    }[positions]
    expected_NT = expected_NT & batch.mask_NT.bool() & (position_NT > 0)
    assert torch.equal(changed_NT & ~expected_NT, torch.zeros_like(changed_NT))
    if name.startswith(("add", "mean", "project_out", "sae")):
        assert torch.equal(changed_NT, expected_NT)


class Seen:
    """What was last at a hook."""

    acts_NTD: Tensor

    def __call__(self, acts_NTD: Tensor) -> None:
        self.acts_NTD = acts_NTD.clone()


@every_edit
def test_bos_is_left_alone_unless_asked_for(name: str) -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((4, 4)))
    ids_NT[0, 2] = 0  # the same token later in the text is like any other
    plain = lm.activations(ids_NT, [HOOK])[HOOK]
    edit = EXAMPLES[name]
    with steered(lm, [edit]):
        assert torch.equal(lm.activations(ids_NT, [HOOK])[HOOK][:, 0], plain[:, 0])
    if isinstance(edit, Edit) and edit.name in ("add", "mean_ablate"):
        with steered(lm, [replace(edit, skip_bos=False)]):
            read = lm.activations(ids_NT, [HOOK])[HOOK]
        assert (read != plain).any(dim=-1).all()


@pytest.mark.parametrize("name", sorted(Edit.by_name))
@every_side
def test_row_wise_settings_equal_one_run_a_row(name: str, side: Literal["left", "right"]) -> None:
    lm, batch = tiny_lm(), padded(side)
    edit = replace(example(name, num_rows=3), strength=torch.tensor([0.5, 1.0, 2.0]))
    assert edit.num_rows == 3
    together = batch.own(logits(lm, [edit], **batch.inputs))
    for place, row in enumerate(batch.rows):
        alone = logits(lm, [edit.rows([place])], input_ids=row[None])[0]
        close(together[place], alone)
    twice = edit.rows([2, 0, 2])
    again = padded(side, [batch.rows[2], batch.rows[0], batch.rows[2]])
    found = again.own(logits(lm, [twice], **again.inputs))
    close(found[0], together[2])
    close(found[1], together[0])
    close(found[2], together[2])


@pytest.mark.parametrize("name", sorted(Edit.by_name))
def test_settings_for_other_rows_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"settings for 2 rows, and the batch has 3.*\.rows\("):
        logits(tiny_lm(), [example(name, num_rows=2)], **padded("left").inputs)


@every_edit
def test_no_hook_is_left_after_an_exception(name: str) -> None:
    lm, edit = tiny_lm(), EXAMPLES[name]
    before = num_hooks(lm)
    with pytest.raises(ZeroDivisionError), steered(lm, [edit]):
        assert num_hooks(lm) > before
        raise ZeroDivisionError
    with (
        pytest.raises(ValueError, match="hook 'resid_post.9'"),
        steered(lm, [edit, example("add", hook="resid_post.9")]),
    ):
        pass
    with pytest.raises(ValueError, match="gave"), steered(lm, [at_positions(edit, lambda p: p)]):
        lm.logits(torch.stack(some_rows((4,))))
    assert num_hooks(lm) == before
    assert lm.lock.acquire(blocking=False)
    lm.lock.release()


@every_edit
def test_two_models_do_not_touch_each_other(name: str) -> None:
    one, other = tiny_lm("llama"), tiny_lm("llama", seed=1)
    ids_NT, edit = torch.stack(some_rows((6, 6))), EXAMPLES[name]
    alone = [logits(lm, [edit], input_ids=ids_NT) for lm in (one, other)]
    plain = logits(other, [], input_ids=ids_NT)
    with steered(one, [edit]):
        assert torch.equal(other.logits(ids_NT), plain)
        with steered(other, [edit]):
            assert torch.equal(one.logits(ids_NT), alone[0])
            assert torch.equal(other.logits(ids_NT), alone[1])
        assert torch.equal(other.logits(ids_NT), plain)


@every_edit
def test_nested_contexts_are_one_list_in_order(name: str) -> None:
    lm, ids_NT = tiny_lm(), torch.stack(some_rows((6, 6)))
    then = example("mean_ablate", mean=some_vector(9), strength=0.4)
    first = EXAMPLES[name]
    flat = logits(lm, [first, then], input_ids=ids_NT)
    with steered(lm, [first]):
        assert torch.equal(logits(lm, [then], input_ids=ids_NT), flat)
    assert not torch.allclose(logits(lm, [then, first], input_ids=ids_NT), flat, atol=1e-3)


@every_family
@pytest.mark.parametrize("hook", ["resid_pre.0", "resid_pre.2", "attn_out.1", "mlp_out.0", HOOK])
def test_adding_and_taking_away_is_the_baseline(family: Family, hook: str) -> None:
    lm, batch, v_D = tiny_lm(family), padded("left"), some_vector()
    there, back = example("add", hook=hook), example("add", hook=hook, vector=-v_D)
    close(logits(lm, [there, back], **batch.inputs), logits(lm, [], **batch.inputs))
    twice = logits(lm, [there, there], **batch.inputs)
    close(twice, logits(lm, [there.with_strength(2.0)], **batch.inputs))


@every_edit
def test_half_precision_is_kept(name: str) -> None:
    lm = tiny_lm()
    ids_NT = torch.stack(some_rows((6, 6)))
    try:
        lm.model.bfloat16()
        plain = lm.logits(ids_NT)
        assert torch.equal(logits(lm, [EXAMPLES[name].with_strength(0.0)], input_ids=ids_NT), plain)
        assert logits(lm, [EXAMPLES[name]], input_ids=ids_NT).dtype == torch.bfloat16
    finally:
        tiny_lm.cache_clear()
