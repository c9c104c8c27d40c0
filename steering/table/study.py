"""A whole table, batch by batch: strengths on one half of the prompts, the table on the other.

Shape suffixes: N = answers, E = width of the embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np

from steering.prompt_banks.bank import Bank
from steering.prompt_banks.leak import Leak, topic_leak
from steering.table.answers import FLUENCY, Answers
from steering.table.conditions import BASELINE, RESAMPLED, STEERED_ALONE
from steering.table.grid import Asked, Grid, check_seeds, halves
from steering.table.kept_answers import Answer, KeptAnswers
from steering.table.measuring import Table, mean_fluency, measure
from steering.table.metrics import GroupSpace, changed, directions, gained, lost

__all__ = ["StrengthPoint", "StudySpec", "TableStudy", "best_strength"]

Array = np.ndarray[Any, Any]

logger = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], Array]
"""Texts, none of them blank, to embeddings [N, E]."""


class _Answerer(Protocol):
    """`steering.table.answering.Answerer`."""

    kept: KeptAnswers

    def key(self, asked: Asked) -> str: ...

    def answer(self, batch: Sequence[Asked]) -> None: ...


@dataclass(frozen=True)
class StudySpec:
    """What is asked."""

    banks: tuple[Bank, ...]
    groups: tuple[str, ...]
    seeds: tuple[int, ...]
    strengths: tuple[float, ...]
    """Tried in this order, as fractions of the residual norm."""
    rows: int = 32
    """Answers of a batch."""
    fluent_within: float = 2.0
    """A strength whose answers are so many times as perplexing as unsteered ones is not chosen."""


@dataclass(frozen=True)
class StrengthPoint:
    """C5 at one strength, over the first half of the prompts, against C1."""

    strength: float
    m1_rate: float
    m2_gain: float
    m2_net: float
    m3_towards: float
    """1, the value by chance, where nothing moved."""
    m3_hit: float
    """1 / groups where nothing moved."""
    perplexity: float
    perplexity_ratio: float
    """Over that of C1; 1 where there is no text to measure."""
    repeated_3grams: float
    num_tokens: float


def best_strength(points: Sequence[StrengthPoint], fluent_within: float) -> StrengthPoint:
    """The one with the largest net M2 among the fluent ones, the smaller one among equals.

    Where none is fluent it is the least perplexing one.
    """
    fluent = [point for point in points if point.perplexity_ratio <= fluent_within]
    if not fluent:
        return min(points, key=lambda point: point.perplexity_ratio)
    return max(fluent, key=lambda point: (point.m2_net, -point.strength))


class TableStudy:
    """Batches in a fixed order, so that an interrupted study goes on exactly."""

    def __init__(
        self, spec: StudySpec, space: GroupSpace, answerer: _Answerer, embed: Embed
    ) -> None:
        check_seeds(spec.seeds)
        self.spec = spec
        self.space = space
        self._answerer = answerer
        self._embed = embed
        choosing, reporting = halves(spec.banks)
        self.choosing = Grid(choosing, spec.groups, spec.seeds)
        self.reporting = Grid(reporting, spec.groups, spec.seeds)
        self._embedding_by_key: dict[str, Array] = {}
        self._choosing_units = list(self.choosing.to_choose(spec.strengths))
        self._reporting_units: list[list[Asked]] = []
        self._chosen: StrengthPoint | None = None
        self._num_done = 0

    @property
    def num_units(self) -> int:
        """Pairs of a prompt and a seed, in both halves."""
        return len(self.choosing.pairs) + len(self.reporting.pairs)

    @property
    def units_done(self) -> int:
        """Pairs, from the first one on, that have all their answers."""
        self._go_through(self._choosing_units, self._num_done)
        num_choosing = len(self._choosing_units)
        if self._num_done >= num_choosing:
            if self._chosen is None:
                self._choose()
            self._go_through(self._reporting_units, self._num_done - num_choosing)
        return self._num_done

    def _go_through(self, units: Sequence[Sequence[Asked]], first: int) -> None:
        for unit in units[first:] if first >= 0 else ():
            if not all(self._is_there(asked) for asked in unit):
                return
            self._num_done += 1

    @property
    def is_chosen(self) -> bool:
        """Whether the strength is known: the first half is done."""
        return self.units_done >= len(self._choosing_units)

    def step(self) -> None:
        """Answer and embed the next batch that is not done."""
        units = self._reporting_units if self.is_chosen else self._choosing_units
        asked = list(chain.from_iterable(units))
        for first in range(0, len(asked), self.spec.rows):
            batch = asked[first : first + self.spec.rows]
            if not all(self._is_there(one) for one in batch):
                self._answerer.answer(batch)
                self._embedded(batch)
                return

    def strength_points(self) -> list[StrengthPoint]:
        """Every strength over the pairs of the first half that are done, at least one."""
        num_pairs = min(self._num_done, len(self._choosing_units))
        grid = Grid(self.choosing.questions, self.spec.groups, self.spec.seeds, num_pairs)
        return [self._point(strength, grid) for strength in self.spec.strengths]

    @property
    def chosen(self) -> StrengthPoint:
        """The strength that the table is made with; until the first half is done, the one that
        would be.
        """
        if self._chosen is None:
            return best_strength(self.strength_points(), self.spec.fluent_within)
        return self._chosen

    def _choose(self) -> None:
        found = best_strength(self.strength_points(), self.spec.fluent_within)
        if found.perplexity_ratio > self.spec.fluent_within:
            logger.warning(
                "at every strength steered answers are over %g times as perplexing as unsteered "
                "ones; %g, the best of them, is used; try smaller strengths",
                self.spec.fluent_within,
                found.strength,
            )
        logger.info("strength %g is chosen: %s", found.strength, found)
        self._chosen = found
        self._reporting_units = list(self.reporting.to_report(found.strength))

    def tables(self) -> list[Table]:
        """A table for each bank, over the second half of its prompts, in the order of the banks."""
        asked = list(chain.from_iterable(self._reporting_units))
        answers = self._answers(asked)
        strength = self.chosen.strength
        return [
            measure(bank.name, self.space, answers, self._grid_of(bank, self.reporting), strength)
            for bank in self.spec.banks
        ]

    def leaks(self) -> list[Leak]:
        """How much of the answers' groups comes from the prompts alone, for each whole bank."""
        found = []
        for bank in self.spec.banks:
            plain = [
                asked
                for asked in self.all_asked()
                if asked.condition in (BASELINE.name, RESAMPLED)
                and asked.question.bank == bank.name
            ]
            predicted = self.space.nearest(self._embedded(plain)).tolist()
            ids = [asked.question.prompt.id for asked in plain]
            found.append(topic_leak(bank, self.spec.groups, ids, predicted))
        return found

    def all_asked(self) -> list[Asked]:
        """Every answer of the study that is known to be needed, in order: those of the table once
        the strength is chosen.
        """
        return list(chain(*self._choosing_units, *self._reporting_units))

    def answer_of(self, asked: Asked) -> Answer:
        """What the model said."""
        return self._answerer.kept[self._answerer.key(asked)]

    def nearest_groups(self, asked: Sequence[Asked]) -> list[str | None]:
        """The group of each answer; None for one without text."""
        numbers = self.space.nearest(self._embedded(asked)).tolist()
        return [self.spec.groups[number] if number >= 0 else None for number in numbers]

    def keys_there(self) -> list[str]:
        """Keys of all answers of this study that are there."""
        return [
            key
            for one in self.all_asked()
            if (key := self._answerer.key(one)) in self._answerer.kept
        ]

    def _grid_of(self, bank: Bank, grid: Grid) -> Grid:
        questions = tuple(one for one in grid.questions if one.bank == bank.name)
        return Grid(questions, grid.groups, grid.seeds)

    def _is_there(self, asked: Asked) -> bool:
        return self._answerer.key(asked) in self._answerer.kept

    def _point(self, strength: float, grid: Grid) -> StrengthPoint:
        asked = [
            one
            for one in chain.from_iterable(grid.to_choose(self.spec.strengths))
            if one.strength in (0.0, strength)
        ]
        answers = self._answers(asked)
        cells = answers.cells(STEERED_ALONE.name, BASELINE.name, grid)
        gain = float(gained(self.space, cells).mean())
        towards = directions(self.space, cells, "towards")
        steered = mean_fluency(answers.own_fluency(STEERED_ALONE.name, grid))
        plain = mean_fluency(answers.own_fluency(BASELINE.name, grid))
        return StrengthPoint(
            strength=strength,
            m1_rate=float(changed(self.space, cells).mean()),
            m2_gain=gain,
            m2_net=gain - float(lost(self.space, cells).mean()),
            m3_towards=_mean(towards.distance_N, 1.0),
            m3_hit=_mean(towards.hit_N, 1.0 / self.space.num_groups),
            perplexity=_or(steered["perplexity"], 1.0),
            perplexity_ratio=_or(steered["perplexity"] / plain["perplexity"], 1.0),
            repeated_3grams=steered["repeated_3grams"],
            num_tokens=steered["num_tokens"],
        )

    def _answers(self, asked: Sequence[Asked]) -> Answers:
        kept = [self._answerer.kept[self._answerer.key(one)] for one in asked]
        columns: Mapping[str, Array] = {
            name: np.array([_number(one.fluency[name]) for one in kept]) for name in FLUENCY
        }
        return Answers(asked, self._embedded(asked), columns)

    def _embedded(self, asked: Sequence[Asked]) -> Array:
        """Embeddings [N, E] of answers, nan for blank ones; each is computed once."""
        keys = [self._answerer.key(one) for one in asked]
        text_by_key = {key: self._answerer.kept[key].text for key in keys}
        new = [
            key
            for key, text in text_by_key.items()
            if key not in self._embedding_by_key and text.strip()
        ]
        for some in _parts(new, 256):
            found_NE = self._embed([text_by_key[key] for key in some])
            self._embedding_by_key |= dict(zip(some, found_NE, strict=True))
        blank_E = np.full(self.space.point_GE.shape[1], np.nan)
        return np.stack([self._embedding_by_key.get(key, blank_E) for key in keys])


def _parts(keys: Sequence[str], size: int) -> list[list[str]]:
    left = iter(keys)
    return list(iter(lambda: list(islice(left, size)), []))


def _mean(values: Array, otherwise: float) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else otherwise


def _or(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
