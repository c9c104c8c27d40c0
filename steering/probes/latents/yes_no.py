"""What the model itself answers to a yes/no question about a text: the difference of two logits.

A torch module. Shape suffixes: N = prompts of a batch, T = tokens of the longest, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.errors import BadSteeringInput
from steering.probes.latents.questions import YesNoSpec

__all__ = [
    "Prompt",
    "YesNoSpec",
    "answer_tokens",
    "encode_questions",
    "logit_difference_N",
    "padded",
]


@dataclass(frozen=True)
class Prompt:
    """A question about one text, as tokens."""

    ids: tuple[int, ...]
    text_places: tuple[int, ...]
    """Which of them are of the text itself."""
    chars: tuple[tuple[int, int], ...]
    """The characters of the text that each of those stands for."""


def answer_tokens(lm: LanguageModel, spec: YesNoSpec) -> tuple[list[int], list[int]]:
    """Ids of the tokens that mean yes and no.

    Raises:
        BadSteeringInput: no answer of a side is one token, or one is on both sides.
    """
    sides = []
    for name, answers in (("yes", spec.yes), ("no", spec.no)):
        encoded = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
        single = {ids[0] for ids in encoded if len(ids) == 1}
        if not single:
            raise BadSteeringInput(
                f"none of the answers {name}={list(answers)} is one token of this model; give one "
                "that is"
            )
        sides.append(single)
    if both := sides[0] & sides[1]:
        raise BadSteeringInput(f"token {sorted(both)[0]} means yes and no; give other answers")
    return sorted(sides[0]), sorted(sides[1])


def encode_questions(lm: LanguageModel, texts: Sequence[str], spec: YesNoSpec) -> list[Prompt]:
    """Prompts of texts.

    Raises:
        BadSteeringInput: the tokenizer does not tell characters, or a prompt is too long.
    """
    if not getattr(lm.tokenizer, "is_fast", False):
        raise BadSteeringInput(
            "this tokenizer does not tell which characters a token stands for; take a model with a "
            "fast one (tokenizer.json)"
        )
    prompts = [_encode(lm, text, spec) for text in texts]
    longest = max((len(prompt.ids) for prompt in prompts), default=0)
    if lm.max_context is not None and longest > lm.max_context:
        raise BadSteeringInput(
            f"a question has {longest} tokens, and the model was made for {lm.max_context}; lower "
            f"max_tokens={spec.max_tokens}"
        )
    return prompts


def padded(
    prompts: Sequence[Prompt], batch_tokens: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """(places of the prompts, ids [N, T] padded on the right, last place [N]), long ones first."""
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row].ids), row))
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]].ids)
        rows = order[start : start + max(1, batch_tokens // longest)]
        start += len(rows)
        ids_NT = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids_NT[place, : len(prompts[row].ids)] = torch.tensor(prompts[row].ids)
        yield rows, ids_NT, torch.tensor([len(prompts[row].ids) - 1 for row in rows])


def logit_difference_N(logits_NV: Tensor, yes: Sequence[int], no: Sequence[int]) -> Tensor:
    """log sum exp of the logits of yes less that of no, in float32 at least."""
    exact_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return exact_NV[:, list(yes)].logsumexp(dim=-1) - exact_NV[:, list(no)].logsumexp(dim=-1)


def _encode(lm: LanguageModel, text: str, spec: YesNoSpec) -> Prompt:
    offsets = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = offsets["offset_mapping"]
    if len(spans) > spec.max_tokens:
        text = text[: spans[spec.max_tokens - 1][1]]
    before, _, after = spec.template.replace("{question}", spec.question).partition("{text}")
    whole, bos = before + text + after, [lm.bos_token_id]
    if spec.chat:
        marked = lm.tokenizer.apply_chat_template(
            [{"role": "user", "content": whole}], tokenize=False, add_generation_prompt=True
        )
        before, whole, bos = marked[: marked.index(text)], marked, []
    said = lm.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids = [one for one in bos if one is not None]
    num_bos, start, end = len(ids), len(before), len(before) + len(text)
    places = [place for place, (a, b) in enumerate(said["offset_mapping"]) if a < end and b > start]
    return Prompt(
        ids=(*ids, *said["input_ids"]),
        text_places=tuple(num_bos + place for place in places),
        chars=tuple(
            (max(0, said["offset_mapping"][p][0] - start), said["offset_mapping"][p][1] - start)
            for p in places
        ),
    )
