"""Measured answers, and the cells that they make: a condition's beside what was before. numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.table.conditions import BASELINE, RESAMPLED, condition_named
from steering.table.grid import Asked, Grid, Question
from steering.table.metrics import Cells

__all__ = ["FLUENCY", "Answers"]

Array = np.ndarray[Any, Any]

FLUENCY = (
    "log_perplexity",
    "distinct_1",
    "distinct_2",
    "repeated_3grams",
    "zlib_ratio",
    "num_tokens",
)
"""What is known of each answer beside its embedding; see `steering.measures.fluency`."""


@dataclass(frozen=True)
class Answers:
    """Answers at one strength. N = answers, E = width of the embedding."""

    asked: Sequence[Asked]
    embedding_NE: Array
    """nan for an answer without text."""
    fluency: Mapping[str, Array]
    """[N] by name, those of FLUENCY."""

    @cached_property
    def _row_by_key(self) -> dict[tuple[str, str, str | None, int], int]:
        keys = [(one.condition, one.question.id, one.target, one.seed) for one in self.asked]
        return {key: row for row, key in enumerate(keys)}

    def row(self, condition: str, question: Question, target: str, seed: int) -> int:
        """Place of an answer; those of C1 and C1b serve all targets. Raises BadSteeringInput."""
        is_plain = condition in (BASELINE.name, RESAMPLED)
        key = (condition, question.id, None if is_plain else target, seed)
        if key not in self._row_by_key:
            raise BadSteeringInput(f"the answer of {key} is not there; generate it first")
        return self._row_by_key[key]

    def rows(self, condition: str, grid: Grid) -> Array:
        """Places of a condition's answers, one for each cell of the grid, in its order."""
        return np.array(
            [
                self.row(condition, question, target, seed)
                for question, seed in grid.pairs
                for target in grid.targets(question)
            ],
            dtype=np.int64,
        )

    def cells(self, condition: str, before: str, grid: Grid) -> Cells:
        """A condition's answers beside another's, of the same prompt, target and seed."""
        return Cells(
            self.embedding_NE[self.rows(before, grid)],
            self.embedding_NE[self.rows(condition, grid)],
            *target_and_prompt(grid),
        )

    def own_fluency(self, condition: str, grid: Grid) -> Mapping[str, Array]:
        """A condition's numbers, [cells] by name."""
        rows = self.rows(condition, grid)
        return {name: values[rows] for name, values in self.fluency.items()}


def target_and_prompt(grid: Grid) -> tuple[Array, Array]:
    """Number of the target group and of the question of each cell of a grid, in its order."""
    number = {group: place for place, group in enumerate(grid.groups)}
    place = {question.id: place for place, question in enumerate(grid.questions)}
    found = [
        (number[target], place[question.id])
        for question, _ in grid.pairs
        for target in grid.targets(question)
    ]
    both = np.array(found, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def pure_baseline(condition: str) -> str | None:
    """The same prompt without steering, for conditions that steer: the secondary "before"."""
    if condition == RESAMPLED or not condition_named(condition).steer:
        return None
    return condition_named(condition).unsteered.name
