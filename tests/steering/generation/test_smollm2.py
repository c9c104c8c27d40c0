"""A real chat model: edits, padding and batches hold, and steering changes what is said."""

from __future__ import annotations

import pytest
import torch

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from steering.edits import Add, Edit, MeanAblate, ProjectOut, steered
from steering.generation import GenerationSpec, answer_logprobs, encode_prompts, generate

pytestmark = pytest.mark.slow

PROMPTS = [
    "Say hello.",
    "Write one sentence about the river Rhine and its bridges.",
    "What is 2+2?",
]
SPEC = GenerationSpec(max_new_tokens=5, temperature=0.7, rows=3)
HOOK = "resid_post.14"


def test_smollm2_is_steered_row_by_row_whatever_the_batch() -> None:
    lm = LanguageModel.load(ModelSpec(builtin="smollm2-135m"), "cpu")
    ids = torch.tensor([encode_prompts(lm, PROMPTS[:1], SPEC)[0]])
    plain = lm.logits(ids)
    acts_TD = lm.activations(ids, [HOOK])[HOOK][0, 1:]
    happy_D = acts_TD[-1] - acts_TD.mean(dim=0)
    edits: list[Edit] = [
        Add(HOOK, happy_D, preserve_norm=True),
        ProjectOut(HOOK, happy_D),
        MeanAblate(HOOK, acts_TD.mean(dim=0)),
    ]
    for edit in edits:
        with steered(lm, [edit.with_strength(0.0)]):
            assert torch.equal(lm.logits(ids), plain)
        with steered(lm, [edit]):
            assert not torch.allclose(lm.logits(ids), plain, atol=1e-2)
    with steered(lm, [Add(HOOK, happy_D), Add(HOOK, -happy_D)]):
        torch.testing.assert_close(lm.logits(ids), plain, atol=1e-2, rtol=1e-3)
    own = Add(HOOK, happy_D, strength=torch.tensor([0.0, 1.0, 2.0]))
    together = generate(lm, PROMPTS, SPEC, edits=[own])
    alone = generate(lm, PROMPTS, SPEC.model_copy(update={"rows": 1}), edits=[own])
    assert together == alone
    assert together[0] == generate(lm, PROMPTS[:1], SPEC)[0]
    unsteered = generate(lm, PROMPTS, SPEC)
    assert together[2] != unsteered[2]
    likely = answer_logprobs(lm, PROMPTS, unsteered, SPEC)
    assert all(float(logprobs_A.mean()) > -3 for logprobs_A in likely)
    assert unsteered[0].text[0].isalpha()
