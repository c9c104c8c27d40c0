"""Answers given under instructions, and their activations read without them. A torch module.

Shape suffixes: N = rows of a batch, T = tokens, D = width, R = draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.directions.contrast_spec import ReadPosition
from steering.directions.kept_answers import generate_kept
from steering.directions.pooled_reading import NormMeter, PooledBatch, class_sums
from steering.directions.positions import read_at
from steering.errors import BadSteeringInput
from steering.generation import GenerationSpec, encode_prompts

__all__ = ["answer_means", "cosine_between_draws"]

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class _Said:
    """An answer behind the prompt without its instruction."""

    prompt: Sequence[int]
    answer: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def answer_means(
    lm: LanguageModel,
    prompts: Sequence[str],
    instructions: Sequence[str],
    hooks: Sequence[str],
    draws: int,
    spec: GenerationSpec,
    pooling: ReadPosition,
    norms: NormMeter,
    keep: Path | None,
) -> tuple[dict[str, Tensor], int]:
    """Mean activations of answers by instruction and draw, [instructions, R, D] a hook.

    An instruction stands before each prompt while the model answers. It is gone when the answer is
    read, so that what is found is how things were said, not having been told to.

    Returns the means (float32), and how many answers were empty and left out.

    Raises:
        BadSteeringInput: no prompts, instructions alike, several draws at temperature 0, or a
            draw without any answer to an instruction.
        UnknownHook: a hook that the model does not have.
    """
    _check(prompts, instructions, draws, spec)
    for hook in {*hooks, *norms.hooks}:
        lm.path_of(hook)
    said, class_of_row = _answers(lm, prompts, instructions, draws, spec, keep)
    num_classes = len(instructions) * draws
    if silent := num_classes - len(set(class_of_row)):
        raise BadSteeringInput(
            f"in {silent} of {num_classes} draws every answer was empty; give more prompts, or "
            "look at what the model answers to them"
        )
    batches = _read(lm, said, hooks, pooling, norms)
    sums, count_C = class_sums(batches, hooks, class_of_row, num_classes)
    means = {}
    for hook in hooks:
        mean_CD = (sums.pop(hook) / count_C.unsqueeze(1)).float()
        means[hook] = mean_CD.view(len(instructions), draws, -1)
    return means, num_classes * len(prompts) - len(said)


def cosine_between_draws(vector_RD: Tensor) -> dict[str, float] | None:
    """Mean and least cosine between two draws; None of a single one."""
    if len(vector_RD) < 2:
        return None
    unit_RD = torch.nn.functional.normalize(vector_RD, dim=1)
    pairs = torch.triu_indices(len(unit_RD), len(unit_RD), offset=1)
    cosines = (unit_RD @ unit_RD.T)[pairs[0], pairs[1]]
    return {"mean": float(cosines.mean()), "least": float(cosines.min())}


def _answers(
    lm: LanguageModel,
    prompts: Sequence[str],
    instructions: Sequence[str],
    draws: int,
    spec: GenerationSpec,
    keep: Path | None,
) -> tuple[list[_Said], list[int]]:
    """Answers that are not empty, and for each its class: instruction * draws + draw."""
    asked, seeds, classes, plain = [], [], [], []
    encoded = encode_prompts(lm, prompts, spec)
    for number, instruction in enumerate(instructions):
        for draw in range(draws):
            for place, prompt in enumerate(prompts):
                asked.append(f"{instruction} {prompt}".strip())
                # All draw with the same noise: what differs is the instruction.
                seeds.append(draw * len(prompts) + place)
                classes.append(number * draws + draw)
                plain.append(encoded[place])
    answers = generate_kept(lm, asked, spec, seeds, keep)
    kept = [row for row, answer in enumerate(answers) if answer.tokens]
    said = [_Said(plain[row], answers[row].tokens) for row in kept]
    return said, [classes[row] for row in kept]


def _read(
    lm: LanguageModel,
    said: Sequence[_Said],
    hooks: Sequence[str],
    position: ReadPosition,
    norms: NormMeter,
) -> Iterator[PooledBatch]:
    """Answers' vectors, over the tokens of the answers alone."""
    order = sorted(range(len(said)), key=lambda row: (-len(said[row]), row))
    wanted = list(dict.fromkeys([*hooks, *norms.hooks]))
    first = 0
    while first < len(order):
        longest = len(said[order[first]])
        rows = order[first : first + max(1, BATCH_TOKENS // longest)]
        first += len(rows)
        tokens_NT = torch.zeros((len(rows), longest), dtype=torch.long)
        is_answer_NT = torch.zeros((len(rows), longest), dtype=torch.bool)
        for place, row in enumerate(rows):
            one = said[row]
            tokens_NT[place, : len(one)] = torch.tensor([*one.prompt, *one.answer])
            is_answer_NT[place, len(one.prompt) : len(one)] = True
        acts = lm.activations(tokens_NT, wanted)
        norms.add(acts, is_answer_NT)
        yield PooledBatch(
            torch.tensor(rows),
            {hook: read_at(acts[hook], is_answer_NT, position).cpu() for hook in hooks},
        )


def _check(
    prompts: Sequence[str], instructions: Sequence[str], draws: int, spec: GenerationSpec
) -> None:
    plain = [instruction.strip() for instruction in instructions]
    twice = sorted({one for one in plain if plain.count(one) > 1})
    if not prompts or twice or len(plain) < 2:
        raise BadSteeringInput(
            f"{len(prompts)} prompts and {len(plain)} instructions, of which {twice[:3]} come "
            "twice; give at least one prompt and two different instructions"
        )
    if draws < 1 or (draws > 1 and spec.temperature == 0):
        raise BadSteeringInput(
            f"draws={draws} at temperature={spec.temperature:g}: at 0 every draw is the same; take "
            "draws=1, or a temperature above 0"
        )
