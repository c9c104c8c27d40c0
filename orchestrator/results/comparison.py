"""Which value of a parameter is better: trials of a sweep in pairs, an interval, a verdict.

From the log alone. Two trials are a pair if they differ in that parameter and in nothing else that
both of its values have. What is resampled are seeds: trials of one seed are not independent.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.view import cells

if TYPE_CHECKING:
    from orchestrator.log.state import TrialState
    from steering.intervals import Interval

SEED = "seed"
MIN_UNITS = 3
MAX_VALUES = 12
"""Of more values each has few trials: the parameter was drawn from a range."""
CONFIDENCE = 0.95

ABSENT = "(absent)"


class CannotCompare(ValueError):
    """What was asked for, why it cannot be said, and what to run so that it can."""


@dataclass(frozen=True)
class Question:
    """What is to be compared."""

    sweep: str
    parameter: str
    metric: str
    direction: Literal["min", "max"]
    chosen_by: str
    """The sweep's own metric, by which the best of `at_best` is chosen."""
    chosen_direction: Literal["min", "max"]
    within: float = 0.0
    """Differences up to this size count as none."""
    at_best: tuple[str, ...] = ()
    """Parameters that each value is compared at its own best setting of."""


@dataclass(frozen=True)
class Side:
    """One value and the trials that have it."""

    value: Any
    num_trials: int
    mean: float
    best: Mapping[str, Any]
    """Its own best setting of the parameters that were asked for."""


@dataclass(frozen=True)
class Contrast:
    """Two values, pair by pair."""

    first: Any
    second: Any
    num_pairs: int
    num_units: int
    """Seeds; or pairs, where trials have no seed."""
    difference: Interval
    """Of the metric, first - second, mean over pairs."""
    winner: Literal["first", "second", "tie"]
    ignored: tuple[str, ...]
    """Parameters that one of the two values alone has; trials are averaged over them."""

    @property
    def verdict(self) -> str:
        """The better value, or tie."""
        values = {"first": self.first, "second": self.second}
        return "tie" if self.winner == "tie" else cells.parameter(values[self.winner])


@dataclass(frozen=True)
class Comparison:
    """The answer."""

    question: Question
    unit: Literal["seeds", "pairs"]
    sides: tuple[Side, ...]
    contrasts: tuple[Contrast, ...]
    left_out: Mapping[str, int]
    """Trials with the parameter that did not finish, by how they ended."""
    not_compared: tuple[str, ...] = ()
    """Two values that have too few pairs, and how few; of several others that have enough."""

    def to_json(self) -> dict[str, Any]:
        """As documented for `saeq compare --json`."""
        asked = self.question
        return {
            "sweep": asked.sweep,
            "by": asked.parameter,
            "metric": asked.metric,
            "direction": asked.direction,
            "within": asked.within,
            "at_best": list(asked.at_best),
            "unit": self.unit,
            "values": [
                {
                    "value": side.value,
                    "trials": side.num_trials,
                    "mean": side.mean,
                    "best": dict(side.best),
                }
                for side in self.sides
            ],
            "comparisons": [self._contrast_json(one) for one in self.contrasts],
            "left_out": dict(self.left_out),
            "not_compared": list(self.not_compared),
        }

    def _contrast_json(self, one: Contrast) -> dict[str, Any]:
        winner = {"first": one.first, "second": one.second}.get(one.winner)
        return {
            "first": one.first,
            "second": one.second,
            "pairs": one.num_pairs,
            self.unit if self.unit == "seeds" else "units": one.num_units,
            "difference": one.difference.estimate,
            "low": one.difference.low,
            "high": one.difference.high,
            "confidence": one.difference.confidence,
            "verdict": "tie" if one.winner == "tie" else "better",
            "winner": winner,
            "ignored": list(one.ignored),
        }

    def to_csv(self) -> str:
        """A line a comparison."""
        file = io.StringIO()
        rows = [self._contrast_json(one) for one in self.contrasts]
        names = [name for name in rows[0] if name != "ignored"] if rows else []
        writer = csv.DictWriter(
            file, ["by", "metric", *names], extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        for row in rows:
            writer.writerow({"by": self.question.parameter, "metric": self.question.metric, **row})
        return file.getvalue()


def compare(trials: Iterable[TrialState], question: Question) -> Comparison:
    """Pair the finished trials up and say which value is better.

    With more than two values all that have pairs are compared, and the intervals are widened so
    that they hold together (Bonferroni): 95% in all.

    Raises:
        CannotCompare: no trial has the parameter or the metric, or there are too few pairs.
    """
    having = [trial for trial in trials if question.parameter in trial.config]
    finished = [trial for trial in having if trial.status == "finished"]
    left_out = Counter(str(trial.status) for trial in having if trial.status != "finished")
    by_value = _by_value(having, finished, question)
    if question.at_best:
        by_value = {value: _at_best(some, question) for value, some in by_value.items()}
    # Trials of one seed are not independent; where none is varied, settings are what is resampled.
    has_seeds = any(SEED in trial.config for trial in finished) and question.parameter != SEED
    values = sorted(by_value, key=_in_order)
    pairs = list(combinations(values, 2))
    contrasts, refusals = [], []
    for a, b in pairs:
        try:
            contrasts.append(_contrast(a, b, by_value, question, has_seeds, len(pairs), left_out))
        except CannotCompare as refused:
            refusals.append(refused)
    if not contrasts:
        raise refusals[0]
    return Comparison(
        question,
        "seeds" if has_seeds else "pairs",
        tuple(_side(value, by_value[value], question) for value in values),
        tuple(contrasts),
        dict(sorted(left_out.items())),
        tuple(str(refused).split(". ")[0] for refused in refusals),
    )


def how_to_pair(parameter: str, values: Sequence[Any]) -> str:
    """Lines of a sweep file whose trials can be compared."""
    listed = ", ".join(_plain(value) for value in values) if values else "A, B"
    lines = ["space:", f"  {parameter}: {{choice: [{listed}]}}"]
    lines += [] if parameter == SEED else [f"  {SEED}: {{choice: [0, 1, 2]}}"]
    lines += ["search: {sampler: grid}", "early_stop: {scheduler: none}"]
    return "\n".join(f"    {line}" for line in lines)


def _by_value(
    having: Sequence[TrialState], finished: Sequence[TrialState], question: Question
) -> dict[str, list[TrialState]]:
    parameter = question.parameter
    by_value: dict[str, list[TrialState]] = {}
    for trial in finished:
        if cells.known(trial.metrics.get(question.metric)) is not None:
            by_value.setdefault(json.dumps(trial.config[parameter]), []).append(trial)
    if len(by_value) > MAX_VALUES:
        raise CannotCompare(
            f"{parameter} has {len(by_value)} values in {question.sweep}; values that were drawn "
            "from a range come once each. Compare values that are listed:\n"
            + how_to_pair(parameter, [json.loads(v) for v in sorted(by_value, key=_in_order)[:2]])
        )
    if len(by_value) < 2:
        some = next((cells.parameter(json.loads(value)) for value in by_value), "none")
        raise CannotCompare(
            f"two values of {parameter} are needed; the finished trials of {question.sweep} with a "
            f"{question.metric} have {some} ({len(finished)} of {len(having)} finished). "
            "Run a sweep such as:\n" + how_to_pair(parameter, [])
        )
    return by_value


def _at_best(some: Sequence[TrialState], question: Question) -> list[TrialState]:
    """The trials of one value at its own best setting: the best mean of the sweep's metric."""
    settings: dict[str, list[TrialState]] = {}
    for trial in some:
        settings.setdefault(_key(trial.config, question.at_best), []).append(trial)
    sign = 1 if question.chosen_direction == "min" else -1

    def badness(setting: str) -> float:
        values = [cells.known(t.metrics.get(question.chosen_by)) for t in settings[setting]]
        told = [value for value in values if value is not None]
        return sign * sum(told) / len(told) if told else float("inf")

    return settings[min(sorted(settings), key=badness)]


def _contrast(
    a: str,
    b: str,
    by_value: Mapping[str, Sequence[TrialState]],
    question: Question,
    has_seeds: bool,
    num_contrasts: int,
    left_out: Mapping[str, int],
) -> Contrast:
    from steering.intervals import paired_interval, verdict

    names_a, names_b = (_names(by_value[value]) for value in (a, b))
    aside = {question.parameter, *question.at_best}
    shared = sorted((names_a & names_b) - aside)
    cells_a, cells_b = (_cells(by_value[value], shared, question.metric) for value in (a, b))
    keys = sorted(set(cells_a) & set(cells_b))
    units = [json.loads(key).get(SEED) if has_seeds else key for key in keys]
    num_units = len({json.dumps(unit) for unit in units})
    if num_units < MIN_UNITS:
        raise CannotCompare(_too_few(a, b, len(keys), num_units, question, has_seeds, left_out))
    difference = paired_interval(
        [cells_a[key] for key in keys],
        [cells_b[key] for key in keys],
        units,
        confidence=1 - (1 - CONFIDENCE) / num_contrasts,
    )
    larger = verdict(difference, within=question.within)
    if larger != "tie" and question.direction == "min":
        larger = "second" if larger == "first" else "first"
    ignored = tuple(sorted((names_a ^ names_b) - aside))
    return Contrast(json.loads(a), json.loads(b), len(keys), num_units, difference, larger, ignored)


def _too_few(
    a: str,
    b: str,
    num_pairs: int,
    num_units: int,
    question: Question,
    has_seeds: bool,
    left_out: Mapping[str, int],
) -> str:
    first, second = (cells.parameter(json.loads(value)) for value in (a, b))
    what = _count(num_pairs, "pair") + (f" over {_count(num_units, 'seed')}" if has_seeds else "")
    ended = ", ".join(f"{count} {status}" for status, count in left_out.items())
    lost = f" ({ended}: a trial that did not finish has no partner)" if ended else ""
    return (
        f"{question.parameter} {first} and {second}: {what} in {question.sweep}, at least "
        f"{MIN_UNITS} {'seeds' if has_seeds else 'pairs'} are needed{lost}. A pair differs in "
        f"{question.parameter} alone. Run a grid over it and the seed:\n"
        + how_to_pair(question.parameter, [json.loads(a), json.loads(b)])
        + ("" if question.at_best else "\nor leave parameters to each value's best: --at-best NAME")
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _side(value: str, some: Sequence[TrialState], question: Question) -> Side:
    told = [cells.known(trial.metrics.get(question.metric)) or 0.0 for trial in some]
    best = {name: some[0].config[name] for name in question.at_best if name in some[0].config}
    return Side(json.loads(value), len(some), sum(told) / len(told), best)


def _cells(some: Sequence[TrialState], shared: Sequence[str], metric: str) -> dict[str, float]:
    """Setting of the shared parameters -> mean of the metric over its trials."""
    values: dict[str, list[float]] = {}
    for trial in some:
        value = cells.known(trial.metrics.get(metric))
        if value is not None:
            values.setdefault(_key(trial.config, shared), []).append(value)
    return {key: sum(told) / len(told) for key, told in values.items()}


def _key(config: Mapping[str, Any], names: Sequence[str]) -> str:
    return json.dumps({name: config.get(name, ABSENT) for name in names}, sort_keys=True)


def _names(some: Sequence[TrialState]) -> set[str]:
    return {name for trial in some for name in trial.config}


def _in_order(value: str) -> tuple[int, float, str]:
    loaded = json.loads(value)
    is_number = isinstance(loaded, int | float) and not isinstance(loaded, bool)
    return (0, float(loaded), "") if is_number else (1, 0.0, value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
