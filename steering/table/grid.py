"""Which answers the table needs: conditions, prompts, targets and seeds. Plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from steering.errors import BadSteeringInput
from steering.prompt_banks.bank import Bank, Prompt
from steering.table.conditions import BASELINE, CONDITIONS, RESAMPLED, STEERED_ALONE

__all__ = ["MIN_SEEDS", "Asked", "Grid", "Question", "check_seeds", "halves"]

MIN_SEEDS = 3
"""Fewer say nothing of how much an answer varies by itself."""


@dataclass(frozen=True)
class Question:
    """A prompt of a bank."""

    bank: str
    prompt: Prompt

    @property
    def id(self) -> str:
        """Among all banks."""
        return f"{self.bank}/{self.prompt.id}"


@dataclass(frozen=True)
class Asked:
    """One answer that is needed."""

    condition: str
    """C1 .. C8, or C1b."""
    question: Question
    target: str | None
    """None where nothing of the target goes in: such an answer serves all targets."""
    seed: int
    strength: float = 0.0
    """0 where the model is not steered."""

    @property
    def sampling_seed(self) -> int:
        """The same for all conditions of a question and seed, so that they differ by what is done
        and not by the dice; another one for C1b.
        """
        again = " again" if self.condition == RESAMPLED else ""
        said = f"{self.question.id} {self.seed}{again}"
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:6], "big")


@dataclass(frozen=True)
class Grid:
    """Questions times seeds, in this order, times targets."""

    questions: tuple[Question, ...]
    groups: tuple[str, ...]
    seeds: tuple[int, ...]
    num_pairs: int | None = None
    """Only the first so many pairs of a question and a seed; None for all."""

    @property
    def pairs(self) -> list[tuple[Question, int]]:
        """Questions and seeds in their order: a unit of progress each."""
        both = [(question, seed) for question in self.questions for seed in self.seeds]
        return both[: self.num_pairs]

    def targets(self, question: Question) -> list[str]:
        """All groups but the one whose topic is asked about."""
        return [group for group in self.groups if group != question.prompt.group]

    def to_choose(self, strengths: Sequence[float]) -> Iterator[list[Asked]]:
        """C1, and C5 at each strength: a list for each question and seed."""
        for question, seed in self.pairs:
            steered = [
                Asked(STEERED_ALONE.name, question, target, seed, strength)
                for strength in strengths
                for target in self.targets(question)
            ]
            yield [Asked(BASELINE.name, question, None, seed), *steered]

    def to_report(self, strength: float) -> Iterator[list[Asked]]:
        """All eight conditions and C1 once more: a list for each question and seed."""
        for question, seed in self.pairs:
            plain = [Asked(name, question, None, seed) for name in (BASELINE.name, RESAMPLED)]
            yield plain + [
                Asked(one.name, question, target, seed, strength if one.steer else 0.0)
                for one in CONDITIONS
                if one.depends_on_target
                for target in self.targets(question)
            ]


def check_seeds(seeds: Sequence[int]) -> None:
    """Whether there are enough. Raises BadSteeringInput."""
    if len(set(seeds)) != len(seeds):
        raise BadSteeringInput(
            f"seeds={list(seeds)} has one twice, which gives nothing new; drop it"
        )
    if len(seeds) < MIN_SEEDS:
        raise BadSteeringInput(
            f"seeds={list(seeds)}: the table needs at least {MIN_SEEDS}, or a change by chance "
            "cannot be told from one by steering; add seeds, and ask fewer prompts if time is short"
        )


def halves(banks: Sequence[Bank]) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Questions to choose a strength on, and questions to report on; each bank, and within it each
    group's prompts, in equal parts.

    Raises:
        BadSteeringInput: a bank with fewer than four prompts has no two for each half.
    """
    choosing: list[Question] = []
    reporting: list[Question] = []
    for bank in banks:
        if len(bank) < 4:
            raise BadSteeringInput(
                f"bank {bank.name!r} has {len(bank)} prompts; at least four are needed: two to "
                "choose the strength on and two to report on"
            )
        ordered = sorted(bank.prompts, key=lambda prompt: prompt.group or "")
        choosing += [Question(bank.name, prompt) for prompt in ordered[::2]]
        reporting += [Question(bank.name, prompt) for prompt in ordered[1::2]]
    return tuple(choosing), tuple(reporting)
