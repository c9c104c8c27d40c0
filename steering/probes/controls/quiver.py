"""The quiver of arrows: what it is worth to have SAE probes among those to choose from.

Kantamneni et al. 2025, section 3: for each problem the method is chosen by its validation AUROC,
once from all and once without those over SAE latents; the gain is the difference in test AUROC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import Interval, mean_interval
from steering.probes.matrices import Array
from steering.probes.ranking_metrics import RankedLabel
from steering.probes.resampling import paired_difference

__all__ = ["Arrow", "QuiverGain", "paired_auroc_gain", "quiver_gain"]


@dataclass(frozen=True)
class Arrow:
    """A probe that was fitted to one problem."""

    problem: str
    """The data and label that probes are compared on."""
    name: str
    is_sae: bool
    """Whether it reads SAE latents."""
    validation_auroc: float
    test_auroc: float
    test_NL: Array | None = None
    """Its scores of the test rows, where an interval over items is wanted."""
    split: str = ""
    """Which split of the problem's data it was chosen and tested on."""


@dataclass(frozen=True)
class QuiverGain:
    """Gain in test AUROC of having SAE probes to choose from."""

    gain: Interval
    """Mean over problems, of each over its splits; low and high are nan where nothing was
    resampled."""
    over: str
    """What was resampled for the interval: problems, items, or nothing."""
    chosen: dict[tuple[str, str], tuple[str, str]]
    """Problem and split -> chosen from all, chosen without SAE probes."""
    gains: dict[tuple[str, str], float]
    """Problem and split -> gain. Those of one problem share their data: their spread is no interval
    of what other data would give."""

    @property
    def sae_share(self) -> float:
        """Share of the problems and splits for which an SAE probe was chosen."""
        return float(np.mean([one != other for one, other in self.chosen.values()]))


def quiver_gain(
    arrows: Sequence[Arrow],
    *,
    y: Any | None = None,
    items: Sequence[Any] | Array | None = None,
    seed: int = 0,
) -> QuiverGain:
    """Choose on validation with and without SAE probes, and compare on test.

    Of several problems, the interval is over problems, whatever the number of their splits. Of one
    on one split, it is over the test items, if the arrows have their scores and `y` and `items` are
    given. Of one on several splits there is none: they share their data, and are not independent
    (Nadeau and Bengio 2003).

    Raises:
        BadSteeringInput: a problem without a probe that reads no SAE.
    """
    by_split: dict[tuple[str, str], list[Arrow]] = defaultdict(list)
    for arrow in arrows:
        by_split[arrow.problem, arrow.split].append(arrow)
    pairs = {key: _choose(own) for key, own in by_split.items()}
    if not pairs:
        raise BadSteeringInput("no probes to choose from")
    chosen = {key: (one.name, other.name) for key, (one, other) in pairs.items()}
    gains = {key: one.test_auroc - other.test_auroc for key, (one, other) in pairs.items()}
    by_problem: dict[str, list[float]] = defaultdict(list)
    for (problem, _), gain in gains.items():
        by_problem[problem].append(gain)
    means = [float(np.mean(own)) for own in by_problem.values()]
    if len(means) > 1:
        return QuiverGain(mean_interval(means, seed=seed), "problems", chosen, gains)
    (best, without), *others = pairs.values()
    if others or y is None or items is None or best.test_NL is None or without.test_NL is None:
        nothing = Interval(means[0], float("nan"), float("nan"))
        return QuiverGain(nothing, "nothing", chosen, gains)
    interval = paired_auroc_gain(best.test_NL, without.test_NL, y, items, seed=seed)
    return QuiverGain(interval, "items", chosen, gains)


def _choose(arrows: Sequence[Arrow]) -> tuple[Arrow, Arrow]:
    """The best by validation AUROC of all, and of those without SAE; the first of equal ones."""
    plain = [arrow for arrow in arrows if not arrow.is_sae]
    if not plain:
        raise BadSteeringInput(
            f"{arrows[0].problem}: only SAE probes; add a probe over raw activations to compare"
        )
    without = max(plain, key=lambda arrow: arrow.validation_auroc)
    best = max(arrows, key=lambda arrow: arrow.validation_auroc)
    # A tie is no reason to take the SAE probe.
    return (best if best.validation_auroc > without.validation_auroc else without), without


def paired_auroc_gain(
    first_NL: Array, second_NL: Array, y: Any, items: Sequence[Any] | Array, *, seed: int = 0
) -> Interval:
    """Macro AUROC of the first scores less that of the second, over resampled items."""
    y_NL = np.asarray(y, dtype=bool).reshape(len(items), -1)

    def measure(score_NL: Array) -> Any:
        score_NL = np.asarray(score_NL).reshape(y_NL.shape)
        ranked = [RankedLabel(s, y) for s, y in zip(score_NL.T, y_NL.T, strict=True)]
        return lambda weight_N: _defined_mean([label.auroc(weight_N) for label in ranked])

    return paired_difference(measure(first_NL), measure(second_NL), items, seed=seed)


def _defined_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
