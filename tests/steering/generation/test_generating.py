"""An answer depends on its own prompt, seed and edits, and equals what plain passes give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.edits import Add, CosineCondition, Edit, When, steered
from steering.errors import BadSteeringInput
from steering.generation import (
    Generated,
    GenerationSpec,
    answer_logprobs,
    encode_prompts,
    generate,
)
from steering.generation.sampling import choose_tokens, row_keys
from tests.sae.tiny_model import ALL_FAMILIES, D_MODEL, Family
from tests.steering.edits.models import HOOK, num_hooks, tiny_lm

PROMPTS = [
    "The river",
    "The old mill and the children of the village watched the water turn the wheel",
    "Nobody knew why",
    "the bread was better for it, but the miller",
    "A measure of grain was weighed",
]
SPEC = GenerationSpec(max_new_tokens=10, chat=False)
GREEDY = SPEC.model_copy(update={"temperature": 0.0})
EOS = 1

every_family = pytest.mark.parametrize("family", ALL_FAMILIES)


def vectors(num_rows: int = len(PROMPTS)) -> Tensor:
    return torch.randn((num_rows, D_MODEL), generator=torch.Generator().manual_seed(0)) * 3


EDITS: list[Edit | When] = [
    Add(HOOK, vectors(), strength=torch.arange(5) * 0.4, positions="generated"),
    When(
        Add("resid_pre.2", vectors()[0]),
        CosineCondition("resid_post.0", vectors(), torch.tensor([-2.0, 2.0, -2.0, 2.0, 0.0])),
    ),
]


def check_against_a_plain_pass(
    lm: LanguageModel, row: int, answer: Generated, spec: GenerationSpec
) -> None:
    """Every token is what a pass without cache and padding over all before it would give."""
    ids = encode_prompts(lm, [PROMPTS[row]], spec)[0]
    own = [edit.rows([row]) for edit in EDITS]
    with steered(lm, own, prompt_lengths=torch.tensor([len(ids)])):
        logits_TV = lm.logits(torch.tensor([[*ids, *answer.tokens]]))[0, len(ids) - 1 :]
    options = {"temperature": spec.temperature, "top_p": spec.top_p}
    for step, token in enumerate(answer.tokens):
        chosen = choose_tokens(logits_TV[step, None], row_keys(spec.seed, [row]), step, **options)
        assert int(chosen) == token
    assert answer.ended or len(answer.tokens) == spec.max_new_tokens


def check_batches(lm: LanguageModel, spec: GenerationSpec, num_rows: int = 5) -> list[Generated]:
    prompts, edits = PROMPTS[:num_rows], [edit.rows(range(num_rows)) for edit in EDITS]
    whole = generate(lm, prompts, spec, edits=edits)
    for rows in (1, 3):
        again = generate(lm, prompts, spec.model_copy(update={"rows": rows}), edits=edits)
        assert again == whole
    for row, answer in enumerate(whole):
        check_against_a_plain_pass(lm, row, answer, spec)
    return whole


@every_family
def test_answers_are_those_of_plain_passes_whatever_the_batch(family: Family) -> None:
    lm = tiny_lm(family)
    assert check_batches(lm, SPEC) != generate(lm, PROMPTS, SPEC)


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_p": 0.8, "temperature": 0.7}])
def test_however_tokens_are_chosen(settings: dict[str, float]) -> None:
    check_batches(tiny_lm(), SPEC.model_copy(update=settings))


def test_sliding_windows_slide_over_padding_too() -> None:
    """Gemma's window is 64 tokens here: prompt and answer are longer than that."""
    spec = SPEC.model_copy(update={"max_new_tokens": 60})
    whole = check_batches(tiny_lm("gemma2"), spec, num_rows=2)
    ids = encode_prompts(tiny_lm("gemma2"), PROMPTS[1:2], spec)[0]
    assert len(ids) + len(whole[1].tokens) > 64


def test_greedy_answers_are_transformers_own() -> None:
    lm = tiny_lm()
    answers = generate(lm, PROMPTS, GREEDY)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor(encode_prompts(lm, [prompt], GREEDY))
        found = lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            do_sample=False,
            pad_token_id=EOS,
        )[0, ids.shape[1] :].tolist()
        assert answer.tokens == tuple(token for token in found if token != EOS)


@contextmanager
def ends_often(lm: LanguageModel) -> Iterator[None]:
    """The end of the text comes with a chance of about one in five."""

    def raise_end(module: object, inputs: object, output: Tensor) -> Tensor:
        del module, inputs
        raised = output.clone()
        raised[..., EOS] = output.logsumexp(dim=-1) - 1.5
        return raised

    handle = lm.model.lm_head.register_forward_hook(raise_end)
    try:
        yield
    finally:
        handle.remove()


def test_rows_that_end_leave_the_batch_and_the_others_go_on() -> None:
    lm, prompts = tiny_lm(), PROMPTS * 4
    edits = [Add(HOOK, vectors(20), positions="generated")]
    widths: list[int] = []
    with ends_often(lm), lm.hooked([(HOOK, lambda acts: widths.append(len(acts)))]):
        whole = generate(lm, prompts, SPEC, edits=edits)
    with ends_often(lm):
        alone = generate(lm, prompts, SPEC.model_copy(update={"rows": 1}), edits=edits)
    assert whole == alone
    assert widths == sorted(widths[:1]) + sorted(widths[1:], reverse=True)
    assert len(set(widths)) > 5
    assert {answer.ended for answer in whole} == {True, False}
    assert all(EOS not in answer.tokens for answer in whole)
    assert all(len(answer.tokens) == 10 for answer in whole if not answer.ended)


def test_rows_are_reported_as_they_are_done_and_can_be_resumed() -> None:
    lm, done = tiny_lm(), dict[int, Generated]()
    spec = SPEC.model_copy(update={"rows": 2})

    def stop_at_3(row: int, answer: Generated) -> None:
        done[row] = answer
        if len(done) == 3:
            raise KeyboardInterrupt

    whole = generate(lm, PROMPTS, spec, edits=EDITS)
    before = num_hooks(lm)
    with pytest.raises(KeyboardInterrupt):
        generate(lm, PROMPTS, spec, edits=EDITS, on_row=stop_at_3)
    assert num_hooks(lm) == before
    rest = [row for row in range(5) if row not in done]
    answers = generate(
        lm,
        [PROMPTS[row] for row in rest],
        spec,
        edits=[edit.rows(rest) for edit in EDITS],
        seeds=rest,
    )
    assert [({**done, **dict(zip(rest, answers, strict=True))})[row] for row in range(5)] == whole


def test_seeds_decide() -> None:
    lm = tiny_lm()
    same = generate(lm, [PROMPTS[0]] * 3, SPEC, seeds=[7, 7, 8])
    assert same[0] == same[1] != same[2]
    assert generate(lm, [PROMPTS[0]], SPEC.model_copy(update={"seed": 1}), seeds=[7])[0] != same[0]
    first, second = generate(lm, [PROMPTS[0]] * 2, SPEC)
    assert first != second, "without seeds each place has its own"


def test_edits_around_generation_are_for_its_rows_too() -> None:
    lm = tiny_lm()
    add = Add(HOOK, vectors()[0])
    with steered(lm, [add]):
        around = generate(lm, PROMPTS, SPEC)
    assert around == generate(lm, PROMPTS, SPEC, edits=[add])


@every_family
def test_answers_are_as_likely_as_a_plain_pass_says(family: Family) -> None:
    lm = tiny_lm(family)
    answers: list[Generated | list[int]] = [*generate(lm, PROMPTS[:4], SPEC, edits=EDITS_OF_4), []]
    for batch_tokens in (4096, 50):
        found = answer_logprobs(lm, PROMPTS, answers, SPEC, batch_tokens=batch_tokens)
        assert [len(x) for x in found] == [
            len(a.tokens) if isinstance(a, Generated) else 0 for a in answers
        ]
        for prompt, answer, logprobs_A in zip(PROMPTS, answers, found, strict=True):
            assert isinstance(answer, Generated) or len(logprobs_A) == 0
            if isinstance(answer, Generated):
                expected = plain_logprobs(lm, prompt, answer.tokens)
                torch.testing.assert_close(logprobs_A, expected, atol=2e-4, rtol=2e-4)


EDITS_OF_4 = [edit.rows(range(4)) for edit in EDITS]


def plain_logprobs(lm: LanguageModel, prompt: str, tokens: tuple[int, ...]) -> Tensor:
    ids = encode_prompts(lm, [prompt], SPEC)[0]
    logits_TV = lm.logits(torch.tensor([[*ids, *tokens]]))[0, len(ids) - 1 : -1]
    return logits_TV.log_softmax(dim=-1)[torch.arange(len(tokens)), torch.tensor(tokens)]


def test_trap_9_only_the_answers_tokens_count_and_under_the_unsteered_model() -> None:
    """AxBench scores prompt and answer together for some methods, the answer alone for others."""
    lm = tiny_lm()
    steered_answer = generate(lm, PROMPTS[:1], SPEC, edits=[Add(HOOK, vectors()[0])])[0]
    (found,) = answer_logprobs(lm, PROMPTS[:1], [steered_answer], SPEC)
    assert len(found) == len(steered_answer.tokens)
    torch.testing.assert_close(
        found, plain_logprobs(lm, PROMPTS[0], steered_answer.tokens), atol=1e-4, rtol=1e-4
    )
    (own,) = answer_logprobs(
        lm, PROMPTS[:1], [steered_answer], SPEC, edits=[Add(HOOK, vectors()[0])]
    )
    assert own.mean() > found.mean(), "its own model finds it likelier"


def test_nothing_asked_is_nothing_answered() -> None:
    assert generate(tiny_lm(), [], SPEC) == []
    assert answer_logprobs(tiny_lm(), [], [], SPEC) == []


def test_what_cannot_be_generated_is_refused() -> None:
    lm = tiny_lm()
    with pytest.raises(BadSteeringInput, match="2 rows, and there are 5 prompts; give one for all"):
        generate(lm, PROMPTS, SPEC, edits=[Add(HOOK, vectors(2))])
    with pytest.raises(BadSteeringInput, match="1 seeds for 5 prompts"):
        generate(lm, PROMPTS, SPEC, seeds=[1])
    long = SPEC.model_copy(update={"max_new_tokens": 300})
    with pytest.raises(
        BadSteeringInput, match="max_new_tokens=300 exceeds the model's context of 256"
    ):
        generate(lm, PROMPTS, long)
    with pytest.raises(BadSteeringInput, match="1 answers to 5 prompts"):
        answer_logprobs(lm, PROMPTS, [[1]], SPEC)
    with pytest.raises(BadSteeringInput, match="more than the model's context of 256; shorten"):
        answer_logprobs(lm, PROMPTS[:1], [[5] * 300], SPEC)
