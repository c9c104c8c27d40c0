"""The table in numbers: each condition's metrics with intervals, and conditions held against
each other. numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.intervals import Interval, Verdict, verdict
from steering.table.answers import FLUENCY, Answers, pure_baseline, target_and_prompt
from steering.table.conditions import BASELINE, CONDITIONS, RESAMPLED, condition_named
from steering.table.grid import Grid
from steering.table.metrics import (
    READINGS,
    Cells,
    GroupSpace,
    Reading,
    changed,
    directions,
    gained,
    lost,
)
from steering.table.statistics import (
    McNemar,
    cluster_mean,
    cluster_ratio,
    mcnemar,
    paired_difference,
)

__all__ = ["COMPARED", "Comparison", "ConditionRow", "Direction", "Shift", "Table", "measure"]

Array = np.ndarray[Any, Any]

COMPARED: tuple[tuple[str, str], ...] = (
    ("C5", RESAMPLED),
    ("C2", RESAMPLED),
    ("C4", RESAMPLED),
    ("C5", "C2"),
    ("C5", "C3"),
    ("C5", "C4"),
    ("C6", "C2"),
    ("C7", "C3"),
    ("C8", "C4"),
)
"""Each way against doing nothing; steering against prompting; steering on top of prompting."""

MIN_PROMPTS = 6
"""Fewer give no verdict: with 5 that all agree a sign test is still at 2 / 2**5 = 0.06, and the
bootstrap's interval over a few prompts is far too narrow."""


@dataclass(frozen=True)
class Direction:
    """M3 in one reading."""

    distance: Interval
    """Mean of 1 - cos over the cells that have a direction; nan if none has."""
    hit: Interval
    num_excluded: int


@dataclass(frozen=True)
class Shift:
    """M1, M2 and M3 of a condition against one "before"."""

    before: str
    num_cells: int
    changed: Interval
    num_changed: int
    gain: Interval
    num_gained: int
    loss: Interval
    num_lost: int
    net: Interval
    conditional: Interval
    """Gains over cells that were not there yet; nan if all were."""
    direction: Mapping[Reading, Direction]


@dataclass(frozen=True)
class ConditionRow:
    """A line of the table."""

    name: str
    label: str
    right_group: Interval
    """Share of answers that are of the target group, whatever was before."""
    shift: Shift
    """Against C1 of the same prompt and seed; C1's own is against C1 with another seed."""
    pure: Shift | None
    """Against the same prompt without steering; None where nothing is steered."""
    fluency: Mapping[str, float]
    """Means over the answers: perplexity (in logarithms), ..., num_tokens, empty."""


@dataclass(frozen=True)
class Comparison:
    """Two conditions over the same cells, by their net M2."""

    first: str
    second: str
    net: Interval
    """Of first - second, over resampled prompts."""
    test: McNemar
    """On gains."""
    verdict: Verdict | None
    """None with fewer than MIN_PROMPTS prompts."""


@dataclass(frozen=True)
class Table:
    """All of it for one bank."""

    bank: str
    num_prompts: int
    num_seeds: int
    groups: tuple[str, ...]
    rows: tuple[ConditionRow, ...]
    comparisons: tuple[Comparison, ...]
    strength: float

    @property
    def chance(self) -> float:
        """Of being in, or moving towards, the right one of the groups."""
        return 1.0 / len(self.groups)

    def row(self, name: str) -> ConditionRow:
        """A condition's line."""
        return next(row for row in self.rows if row.name == name)


def measure(bank: str, space: GroupSpace, answers: Answers, grid: Grid, strength: float) -> Table:
    """The table of one bank's answers.

    Raises:
        BadSteeringInput: an answer is missing, or there are fewer than two prompts.
    """
    rows = tuple(_row(one.name, space, answers, grid) for one in CONDITIONS)
    comparisons = tuple(_compare(a, b, space, answers, grid) for a, b in COMPARED)
    return Table(
        bank, len(grid.questions), len(grid.seeds), grid.groups, rows, comparisons, strength
    )


def measure_shift(space: GroupSpace, cells: Cells, before: str) -> Shift:
    """M1, M2 and M3 with intervals over prompts."""
    units = cells.prompt_N
    changed_N, gained_N = changed(space, cells), gained(space, cells)
    lost_N = lost(space, cells)
    elsewhere_N = space.nearest(cells.before_NE) != cells.target_N
    by_reading = {}
    for reading in READINGS:
        found = directions(space, cells, reading)
        by_reading[reading] = Direction(
            cluster_mean(found.distance_N, units),
            cluster_mean(found.hit_N, units),
            found.num_excluded,
        )
    return Shift(
        before=before,
        num_cells=len(cells),
        changed=cluster_mean(changed_N, units),
        num_changed=int(changed_N.sum()),
        gain=cluster_mean(gained_N, units),
        num_gained=int(gained_N.sum()),
        loss=cluster_mean(lost_N, units),
        num_lost=int(lost_N.sum()),
        net=cluster_mean(gained_N.astype(float) - lost_N, units),
        conditional=cluster_ratio(gained_N, elsewhere_N, units),
        direction=by_reading,
    )


def mean_fluency(columns: Mapping[str, Array]) -> dict[str, float]:
    """Means over answers; perplexity in logarithms, and over those that have tokens."""
    logs = columns["log_perplexity"]
    logs = logs[np.isfinite(logs)]
    return {
        "perplexity": float(np.exp(logs.mean())) if len(logs) else float("nan"),
        **{name: float(columns[name].mean()) for name in FLUENCY if name != "log_perplexity"},
        "empty": float((columns["num_tokens"] == 0).mean()),
    }


def _row(name: str, space: GroupSpace, answers: Answers, grid: Grid) -> ConditionRow:
    is_baseline = name == BASELINE.name
    cells = answers.cells(RESAMPLED if is_baseline else name, BASELINE.name, grid)
    own_NE = answers.embedding_NE[answers.rows(name, grid)]
    target_N, prompt_N = target_and_prompt(grid)
    before = pure_baseline(name)
    pure = None
    if before is not None:
        pure = measure_shift(space, answers.cells(name, before, grid), before)
    return ConditionRow(
        name,
        condition_named(name).label,
        cluster_mean(space.nearest(own_NE) == target_N, prompt_N),
        measure_shift(space, cells, BASELINE.name),
        pure,
        mean_fluency(answers.own_fluency(name, grid)),
    )


def _compare(
    first: str, second: str, space: GroupSpace, answers: Answers, grid: Grid
) -> Comparison:
    one, other = (answers.cells(name, BASELINE.name, grid) for name in (first, second))
    gains = gained(space, one), gained(space, other)
    nets = gains[0].astype(float) - lost(space, one), gains[1].astype(float) - lost(space, other)
    net = paired_difference(*nets, one.prompt_N)
    says = verdict(net) if len(grid.questions) >= MIN_PROMPTS else None
    return Comparison(first, second, net, mcnemar(*gains), says)
