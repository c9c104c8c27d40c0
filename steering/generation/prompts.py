"""Prompts as token ids, in a chat template or raw, and the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.errors import BadSteeringInput
from steering.generation.spec import GenerationSpec

__all__ = ["LeftPadded", "encode_prompts", "left_padded", "stop_tokens"]

TURN_ENDS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<|end_of_turn|>")
"""How chat templates close a turn; not every model's settings name it as an end of text."""


@dataclass(frozen=True)
class LeftPadded:
    """A batch whose rows end together. N = rows, T = tokens of the longest."""

    ids_NT: Tensor
    is_token_NT: Tensor
    """int64, 1 for tokens, 0 for padding."""

    @property
    def position_NT(self) -> Tensor:
        """Places of tokens in their own row, without the padding."""
        return (self.is_token_NT.cumsum(dim=1) - 1).clamp(min=0)

    @property
    def length_N(self) -> Tensor:
        """Tokens of each row."""
        return self.is_token_NT.sum(dim=1)


def encode_prompts(
    lm: LanguageModel, prompts: Sequence[str], spec: GenerationSpec
) -> list[list[int]]:
    """Token ids of each prompt, up to where the answer begins.

    Raises BadSteeringInput: no chat template, one that refuses the system message, an empty prompt.
    """
    encoded = [_encode(lm, prompt, spec) for prompt in prompts]
    for row, ids in enumerate(encoded):
        if not ids:
            raise BadSteeringInput(
                f"prompt {row} is empty, and nothing follows from it; leave it out"
            )
    return encoded


def stop_tokens(lm: LanguageModel) -> frozenset[int]:
    """Tokens that end an answer: of the text or, in a chat, of the turn."""
    config = getattr(lm.model, "generation_config", None)
    said = getattr(config, "eos_token_id", None)
    found = {said} if isinstance(said, int) else set(said or ())
    found |= set() if lm.eos_token_id is None else {lm.eos_token_id}
    vocabulary = lm.tokenizer.get_vocab()
    return frozenset(found | {vocabulary[name] for name in TURN_ENDS if name in vocabulary})


def left_padded(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> LeftPadded:
    """Rows of token ids as one batch on the model's device."""
    longest = max(len(ids) for ids in rows)
    # Any id will do: it is masked.
    ids_NT = torch.zeros((len(rows), longest), dtype=torch.long)
    is_token_NT = torch.zeros_like(ids_NT)
    for row, ids in enumerate(rows):
        ids_NT[row, longest - len(ids) :] = torch.tensor(ids)
        is_token_NT[row, longest - len(ids) :] = 1
    return LeftPadded(ids_NT.to(lm.device), is_token_NT.to(lm.device))


def _encode(lm: LanguageModel, prompt: str, spec: GenerationSpec) -> list[int]:
    tokenizer = lm.tokenizer
    if not spec.chat:
        if spec.system is not None:
            raise BadSteeringInput("a system message needs a chat; set chat: true or leave it out")
        bos = [] if lm.bos_token_id is None else [lm.bos_token_id]
        return bos + _ids(tokenizer, prompt)
    if not getattr(tokenizer, "chat_template", None):
        raise BadSteeringInput(
            "the model's tokenizer has no chat template; set chat: false to continue prompts as "
            "they are, or take an instruction-tuned model"
        )
    system = [] if spec.system is None else [{"role": "system", "content": spec.system}]
    return _ids(tokenizer, _in_chat(tokenizer, [*system, {"role": "user", "content": prompt}]))


def _in_chat(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise BadSteeringInput(
            f"the model's chat template refuses {' and '.join(m['role'] for m in messages)} "
            f"messages: {error}; put a system message into the prompts instead"
        ) from error
    return str(text)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
