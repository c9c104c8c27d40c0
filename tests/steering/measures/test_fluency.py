"""Fluency: of the answer alone, given the plain prompt, whatever is beside it in a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from steering.errors import BadSteeringInput
from steering.measures import fluency as fluency_of
from tests.sae.tiny_model import build_tiny_model

fluency = partial(fluency_of, chat=False)

PROMPTS = ["The river ran past the mill", "A measure", "Nobody knew why the miller sang, but"]
ANSWERS = [" and the children watched.", " of grain was weighed in the morning; by night", " it."]


@dataclass(frozen=True)
class Said:
    text: str
    tokens: tuple[int, ...]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    return LanguageModel.load(ModelSpec(name=str(folder)), "cpu")


def test_perplexity_is_that_of_the_answers_tokens_alone(lm: LanguageModel) -> None:
    found = fluency(lm, PROMPTS, ANSWERS)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        prompt_ids = [lm.bos_token_id, *lm.tokenizer(prompt)["input_ids"]]
        ids = lm.tokenizer(answer)["input_ids"]
        log_p_TV = lm.logits(torch.tensor([prompt_ids + ids]))[0].log_softmax(-1)
        each = [-log_p_TV[len(prompt_ids) + i - 1, token].item() for i, token in enumerate(ids)]
        assert found.log_perplexity_N[row] == pytest.approx(np.mean(each), abs=1e-5)
        assert found.num_tokens_N[row] == len(ids)
    assert found.mean().perplexity == pytest.approx(np.exp(found.log_perplexity_N.mean()))


def test_a_row_does_not_depend_on_the_batch_it_is_in(lm: LanguageModel) -> None:
    together = fluency(lm, PROMPTS, ANSWERS)
    alone = fluency(lm, PROMPTS, ANSWERS, batch_tokens=1)
    np.testing.assert_allclose(together.log_perplexity_N, alone.log_perplexity_N, atol=1e-5)
    one = fluency(lm, PROMPTS[1:2], ANSWERS[1:2])
    np.testing.assert_allclose(together.take([1]).log_perplexity_N, one.log_perplexity_N, atol=1e-5)


def test_generated_tokens_are_taken_as_they_are_and_the_end_is_not_counted(
    lm: LanguageModel,
) -> None:
    ids = tuple(lm.tokenizer(ANSWERS[0])["input_ids"])
    assert lm.eos_token_id is not None
    said = [Said(ANSWERS[0], ids), Said(ANSWERS[0], (*ids, lm.eos_token_id))]
    found = fluency(lm, [PROMPTS[0]] * 3, [*said, ANSWERS[0]])
    np.testing.assert_allclose(found.log_perplexity_N, found.log_perplexity_N[0], atol=1e-5)


def test_a_loop_shows_in_ngrams_and_compression(lm: LanguageModel) -> None:
    loop, plain = " the mill" * 40, ANSWERS[1]
    found = fluency(lm, [PROMPTS[0]] * 2, [loop, plain])
    assert found.repeated_3grams_N[0] > 0.9
    assert found.distinct_1_N[0] < 0.1
    assert found.distinct_2_N[0] < 0.1
    assert found.zlib_ratio_N[0] < 0.2
    assert found.repeated_3grams_N[1] < 0.2
    assert found.distinct_2_N[1] > 0.8


def test_an_empty_answer_has_no_perplexity_and_is_counted(lm: LanguageModel) -> None:
    found = fluency(lm, PROMPTS[:2], ["", ANSWERS[1]])
    assert np.isnan(found.log_perplexity_N[0])
    mean = found.mean()
    assert mean.empty == 0.5
    assert mean.perplexity == pytest.approx(np.exp(found.log_perplexity_N[1]))
    assert found.distinct_1_N[0] == 0.0


def test_a_chat_needs_a_template(lm: LanguageModel) -> None:
    with pytest.raises(BadSteeringInput, match="no chat template; set chat: false"):
        fluency_of(lm, PROMPTS, ANSWERS)


def test_answers_without_their_prompts_are_refused(lm: LanguageModel) -> None:
    with pytest.raises(BadSteeringInput, match="3 answers to 2 prompts; repeat a prompt"):
        fluency(lm, PROMPTS[:2], ANSWERS)
