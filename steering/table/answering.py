"""Answers of a language model to what the table asks, generated in batches of all conditions.

A torch module. Shape suffixes: N = answers of a batch, D = d_model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.edits import Add
from steering.edits.positions import Positions
from steering.generation import Generated, GenerationSpec, generate
from steering.measures import fluency
from steering.table.answers import FLUENCY
from steering.table.conditions import RESAMPLED, PromptTexts, condition_named
from steering.table.grid import Asked
from steering.table.kept_answers import Answer, KeptAnswers, key_of
from steering.vectors import SteeringVectors, model_identity

__all__ = ["Answerer", "Way"]


@dataclass(frozen=True)
class Way:
    """How a target is said and steered to."""

    texts: PromptTexts
    sentences: Mapping[str, Sequence[str]]
    """Of each group's leading attributes, as prompts say them."""
    vectors: Mapping[str, SteeringVectors]
    """Of each group."""
    hook: str
    positions: Positions = "all"
    preserve_norm: bool = False


class Answerer:
    """Generates what is missing, and keeps it."""

    def __init__(
        self, lm: LanguageModel, spec: GenerationSpec, way: Way, kept: KeptAnswers
    ) -> None:
        self._lm = lm
        self._spec = spec
        self.way = way
        self.kept = kept
        self._key_by_asked: dict[Asked, str] = {}

    def prompt(self, asked: Asked) -> str:
        """What the model is asked, in words."""
        if asked.condition == RESAMPLED or asked.target is None:
            return asked.question.prompt.text
        return self.way.texts.prompt(
            condition_named(asked.condition),
            asked.question.prompt.text,
            asked.target,
            self.way.sentences[asked.target],
        )

    def key(self, asked: Asked) -> str:
        """Names all that an answer follows from."""
        if asked not in self._key_by_asked:
            self._key_by_asked[asked] = self._make_key(asked)
        return self._key_by_asked[asked]

    def _make_key(self, asked: Asked) -> str:
        steering = None
        if asked.strength:
            assert asked.target is not None
            steering = {
                "vector": self._hash_by_group[asked.target],
                "hook": self.way.hook,
                "strength": asked.strength,
                "positions": str(self.way.positions),
                "preserve_norm": self.way.preserve_norm,
            }
        return key_of(
            {
                "model": self._model,
                "generation": self._spec.model_dump(mode="json", exclude={"rows"}),
                "prompt": self.prompt(asked),
                "question": asked.question.prompt.text,
                "seed": asked.sampling_seed,
                "steering": steering,
            }
        )

    def answer(self, batch: Sequence[Asked]) -> None:
        """Generate those of a batch that are not there yet, and measure their fluency.

        Raises BadSteeringInput, UnknownHook: see `steering.generation.generate`.
        """
        missing = {self.key(asked): asked for asked in batch if self.key(asked) not in self.kept}
        if not missing:
            return
        some = list(missing.values())
        generated = generate(
            self._lm,
            [self.prompt(asked) for asked in some],
            self._spec,
            edits=self._edits(some),
            seeds=[asked.sampling_seed for asked in some],
        )
        measured = self._fluency(some, generated)
        self.kept.add(
            {
                key: Answer(one.text, one.ended, numbers)
                for key, one, numbers in zip(missing, generated, measured, strict=True)
            }
        )

    def _edits(self, some: Sequence[Asked]) -> list[Add]:
        if not any(asked.strength for asked in some):
            return []
        way = self.way
        rows = [self._displacement(asked) for asked in some]
        vector_ND = torch.stack(rows)
        return [Add(way.hook, vector_ND, positions=way.positions, preserve_norm=way.preserve_norm)]

    def _displacement(self, asked: Asked) -> Tensor:
        vectors = self.way.vectors
        if not asked.strength or asked.target is None:
            return torch.zeros(next(iter(vectors.values())).d_model)
        return vectors[asked.target].displacement(self.way.hook, asked.strength)

    def _fluency(
        self, some: Sequence[Asked], generated: Sequence[Generated]
    ) -> list[dict[str, float | None]]:
        plain = [asked.question.prompt.text for asked in some]
        found = fluency(self._lm, plain, generated, chat=self._spec.chat, system=self._spec.system)
        columns = {name: getattr(found, f"{name}_N").tolist() for name in FLUENCY}
        return [
            {name: _finite(values[row]) for name, values in columns.items()}
            for row in range(len(some))
        ]

    @cached_property
    def _hash_by_group(self) -> dict[str, str]:
        # What is added, not where it came from: vectors made in two ways may be the same.
        return {
            group: key_of({"displacement": vectors.displacement(self.way.hook, 1.0).tolist()})
            for group, vectors in self.way.vectors.items()
        }

    @cached_property
    def _model(self) -> dict[str, Any]:
        return {**model_identity(self._lm).model_dump(mode="json"), "dtype": str(self._lm.dtype)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
