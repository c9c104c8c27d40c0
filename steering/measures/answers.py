"""Answers that were generated and measured, as rows that a trial can go on from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from steering.errors import BadSteeringInput
from steering.measures.fluency import Fluency
from steering.measures.objective import Measured

__all__ = ["AnswerRow", "AnswerTable", "Condition", "Half", "read_answers", "write_answers"]

Half = Literal["selection", "test"]
"""Prompts that a strength is chosen on, and those that are reported."""
Condition = Literal["steered", "unsteered", "prompted", "random"]
"""prompted: asked for in words; random: a random direction, as long as the steered one."""


@dataclass(frozen=True)
class AnswerRow:
    """One answer and its measures."""

    half: Half
    prompt: int
    """Its place among the job's prompts."""
    condition: Condition
    strength: float
    """0 where nothing was added."""
    text: str
    tokens: tuple[int, ...]
    ended: bool
    """False if it was cut at its longest."""
    effect: float
    relevance: float
    """Cosine."""
    log_perplexity: float | None
    """None for an answer without tokens."""
    distinct_1: float
    distinct_2: float
    repeated_3grams: float
    zlib_ratio: float


@dataclass
class AnswerTable:
    """All answers of a trial."""

    rows: list[AnswerRow] = field(default_factory=list)

    def of(self, condition: Condition, half: Half, strength: float | None = None) -> AnswerTable:
        """The answers of one condition, in the order of their prompts."""
        found = [
            row
            for row in self.rows
            if (row.condition, row.half) == (condition, half) and strength in (None, row.strength)
        ]
        return AnswerTable(sorted(found, key=lambda row: row.prompt))

    def to_prompts(self, prompts: Iterable[int]) -> AnswerTable:
        """The answers to some prompts."""
        wanted = set(prompts)
        return AnswerTable([row for row in self.rows if row.prompt in wanted])

    @property
    def prompts(self) -> list[int]:
        """The prompt of each row."""
        return [row.prompt for row in self.rows]

    @property
    def measured(self) -> Measured:
        """The measures as arrays, a row each."""

        def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            values = [getattr(row, name) for row in self.rows]
            return np.array([np.nan if v is None else v for v in values], dtype=np.float64)

        fluency = Fluency(
            column("log_perplexity"),
            np.array([len(row.tokens) for row in self.rows], dtype=np.float64),
            column("distinct_1"),
            column("distinct_2"),
            column("repeated_3grams"),
            column("zlib_ratio"),
        )
        return Measured(column("effect"), column("relevance"), fluency)


def write_answers(path: Path, rows: Sequence[AnswerRow]) -> None:
    """JSON lines; numbers come back as they are."""
    lines = [json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def read_answers(path: Path) -> list[AnswerRow]:
    """Read what `write_answers` wrote. Raises BadSteeringInput for a damaged file."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            said = json.loads(line)
            rows.append(AnswerRow(**{**said, "tokens": tuple(said["tokens"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise BadSteeringInput(
                f"{path}, line {number} is no answer ({error}); remove the file, it is made anew"
            ) from error
    return rows
