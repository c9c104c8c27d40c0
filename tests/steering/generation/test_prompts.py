"""Prompts become the token ids that the model was trained to answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sae.language_model import LanguageModel
from steering.errors import BadSteeringInput
from steering.generation import GenerationSpec, encode_prompts, stop_tokens
from tests.steering.edits.models import tiny_lm

CHAT, RAW = GenerationSpec(), GenerationSpec(chat=False)
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
)


@pytest.fixture
def lm() -> Iterator[LanguageModel]:
    model = tiny_lm()
    yield model
    model.tokenizer.chat_template = None


def test_a_chat_ends_where_the_answer_begins(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = TEMPLATE
    with_system = CHAT.model_copy(update={"system": "Be short."})
    texts = [lm.tokenizer.decode(encode_prompts(lm, ["Hi"], s)[0]) for s in (CHAT, with_system)]
    assert texts == ["<user>Hi\n<assistant>", "<system>Be short.\n<user>Hi\n<assistant>"]


def test_a_raw_prompt_follows_the_beginning_of_the_text(lm: LanguageModel) -> None:
    ids = encode_prompts(lm, ["The mill"], RAW)[0]
    assert ids[0] == lm.bos_token_id
    assert lm.tokenizer.decode(ids[1:]) == "The mill"


def test_what_no_template_can_take_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(BadSteeringInput, match="no chat template; set chat: false"):
        encode_prompts(lm, ["Hi"], CHAT)
    with pytest.raises(BadSteeringInput, match="a system message needs a chat"):
        encode_prompts(lm, ["Hi"], RAW.model_copy(update={"system": "Be short."}))
    lm.tokenizer.chat_template = NO_SYSTEM + TEMPLATE
    with pytest.raises(BadSteeringInput, match="refuses system and user.*no system role.*prompts"):
        encode_prompts(lm, ["Hi"], CHAT.model_copy(update={"system": "Be short."}))


def test_an_answer_ends_with_the_text_or_the_turn(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stop_tokens(lm) == {1}
    monkeypatch.setattr(lm.model.generation_config, "eos_token_id", [1, 9])
    vocabulary = {**lm.tokenizer.get_vocab(), "<|im_end|>": 17}
    monkeypatch.setattr(lm.tokenizer, "get_vocab", lambda: vocabulary)
    assert stop_tokens(lm) == {1, 9, 17}
