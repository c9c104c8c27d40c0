"""Optuna's TPE, asked directly: the study is built anew from the log for every question."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite, log
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from orchestrator.samplers.base import Direction, Sampler, SamplerConfig
from orchestrator.spec.distributions import (
    Choice,
    Distribution,
    Fixed,
    Int,
    LogUniform,
    Uniform,
    plain,
    value_key,
)
from orchestrator.stopping.strata import stratum_of

if TYPE_CHECKING:
    import optuna

    from orchestrator.log.state import TrialState
    from orchestrator.spec.space import Space

MAX_MODEL_DRAWS = 10
"""Draws from the model before a configuration that is not known yet is drawn at random."""
MAX_DRAWS = 200
"""Draws before a known configuration is suggested again: the space is as good as exhausted."""


class OptunaConfig(SamplerConfig):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), joint over the parameters.

    A faithfulness metric is not comparable between strata (a larger k always wins), so TPE is kept
    from choosing the stratum and from seeing it in the objective:

    - Parameters named in `strata` whose entry is a choice are dealt out in turn over their
      combinations, by the trial's number.
    - What TPE is told of a trial at a rung, or at its end, is the logarithm of the metric minus
      the median of that logarithm among the trials of the same stratum there. (The metric itself
      minus its median, where one value in the sweep is not positive.)

    Stopped trials are told as pruned, with what they had at each rung; diverged ones as pruned
    with nothing, which TPE ranks below every other; running and waiting ones as running, which
    the constant liar counts as bad so that workers spread out. Failed and cancelled ones say
    nothing about a configuration and are told as failed. Choices among numbers are told in their
    order, so that neighbours are known to be neighbours.
    """

    sampler: Literal["optuna"] = "optuna"
    trials: int = Field(gt=0)
    """How many configurations are tried."""
    startup: int = Field(default=10, gt=0)
    """Trials that have to be over before the model is used; until then draws are random."""

    def build(
        self, space: Space, *, strata: Sequence[str], metric: str, direction: Direction
    ) -> OptunaSampler:
        self.refuse_faults(space)
        return OptunaSampler(self, space, tuple(strata), metric, direction)


@dataclass(frozen=True)
class OptunaSampler(Sampler):
    """Holds nothing between questions: same log and number, same suggestion."""

    config: OptunaConfig
    space: Space
    strata: tuple[str, ...]
    metric: str
    direction: Direction

    def total(self) -> int:
        return self.config.trials

    def suggest(self, number: int, trials: Sequence[TrialState]) -> dict[str, Any]:
        self._check_number(number)
        others = sorted((t for t in trials if t.number != number), key=lambda t: (t.number, t.id))
        known = {_config_key(trial.config) for trial in others}
        with _silenced() as optuna:
            study = self._study(optuna, others)
            for attempt in range(MAX_DRAWS):
                study.sampler = self._sampler(optuna, number, attempt)
                asked = study.ask()
                config = self.space.walk(_Suggest(asked, number, self.strata))
                if _config_key(config) not in known:
                    break
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
        return config

    def _sampler(self, optuna: Any, number: int, attempt: int) -> Any:
        digest = sha256(f"{self.config.seed}:{number}:{attempt}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if attempt >= MAX_MODEL_DRAWS:
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self.config.startup,
            constant_liar=True,
            multivariate=True,
            group=True,  # without it, parameters that only some trials have are drawn at random
        )

    def _study(self, optuna: Any, trials: Sequence[TrialState]) -> Any:
        study = optuna.create_study(direction="minimize")
        scores = centred_scores(trials, self.strata, self.metric, self.direction)
        for trial in trials:
            record = _Record(trial.config, self.strata)
            self.space.walk(record)
            if record.is_of_this_space:
                study.add_trial(_frozen(optuna, trial, record, scores.get(trial.id, {})))
        return study


def centred_scores(
    trials: Sequence[TrialState], strata: Sequence[str], metric: str, direction: Direction
) -> dict[str, dict[int, float]]:
    """Score by trial and tokens: lower is better, 0 is the median of the stratum there.

    Reports at rungs count, and the last metrics of finished trials, at their budget. What is not
    finite is left out. The score is the logarithm of the metric minus its median, so 0.1 is about
    10% worse than usual, wherever all values are positive.
    """
    values: dict[tuple[int, str], dict[str, float]] = {}
    for trial in trials:
        for tokens, metrics in _measured(trial).items():
            value = metrics.get(metric)
            if value is not None and isfinite(value):
                place = (tokens, stratum_of(trial.config, metrics, strata))
                values.setdefault(place, {})[trial.id] = value
    as_log = all(value > 0 for group in values.values() for value in group.values())
    sign = 1.0 if direction == "min" else -1.0
    scores: dict[str, dict[int, float]] = {}
    for (tokens, _), group in values.items():
        scaled = {trial: sign * (log(v) if as_log else v) for trial, v in group.items()}
        usual = median(scaled.values())
        for trial_id, score in scaled.items():
            scores.setdefault(trial_id, {})[tokens] = score - usual
    return scores


def _measured(trial: TrialState) -> dict[int, Mapping[str, float | None]]:
    measured = {tokens: report.metrics for tokens, report in trial.rungs.items()}
    if trial.status == "finished":
        measured[trial.total_tokens] = trial.metrics
    return measured


def _frozen(
    optuna: Any, trial: TrialState, record: _Record, scores: Mapping[int, float]
) -> optuna.trial.FrozenTrial:
    state = optuna.trial.TrialState
    final = scores.get(trial.total_tokens) if trial.status == "finished" else None
    told = {
        "finished": state.PRUNED if final is None else state.COMPLETE,
        "stopped": state.PRUNED,
        "diverged": state.PRUNED,
        "failed": state.FAIL,
        "cancelled": state.FAIL,
    }.get(trial.status, state.RUNNING)
    return optuna.trial.create_trial(
        state=told,
        value=final,
        params=record.params,
        distributions=record.distributions,
        intermediate_values={} if trial.status == "diverged" else dict(scores),
    )


class _Suggest:
    """Answers a walk through the space for a new trial."""

    def __init__(self, asked: optuna.trial.Trial, number: int, strata: Sequence[str]) -> None:
        self._asked, self._strata = asked, strata
        self._turn = number

    def __call__(self, name: str, distribution: Distribution) -> Any:
        if name in self._strata and isinstance(distribution, Choice):
            # Digits of the trial's number, one a parameter: every combination comes in turn.
            self._turn, index = divmod(self._turn, len(distribution.values))
            return plain(distribution.values[index])
        if not distribution.varies:
            return distribution.corners()[0]
        return _decoded(distribution, _suggested(self._asked, name, distribution))


class _Record:
    """Answers a walk through the space from a configuration, and notes what Optuna is told."""

    def __init__(self, config: Mapping[str, Any], strata: Sequence[str]) -> None:
        self._config, self._strata = config, strata
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, Any] = {}
        self.is_of_this_space = True

    def __call__(self, name: str, distribution: Distribution) -> Any:
        if name not in self._config or not distribution.contains(self._config[name]):
            self.is_of_this_space = False
            return distribution.corners()[0]
        value = self._config[name]
        dealt = name in self._strata and isinstance(distribution, Choice)
        if distribution.varies and not dealt:
            key = _key(name, distribution)
            self.params[key] = _encoded(distribution, value)
            self.distributions[key] = _told(distribution)
        return value


def _key(name: str, distribution: Distribution) -> str:
    """One name a range: Optuna takes a parameter whose range depends on others for several."""
    return f"{name} {json.dumps(distribution.body())}"


def _told(distribution: Distribution) -> Any:
    """The distribution in Optuna's words; choices by index, see `_ordered`."""
    from optuna import distributions as told

    match distribution:
        case Choice():
            indices = range(len(distribution.values))
            if _ordered(distribution):
                return told.IntDistribution(0, len(indices) - 1)
            return told.CategoricalDistribution(tuple(indices))
        case Int():
            low, high = distribution.corners()
            return told.IntDistribution(low, high, log=distribution.log, step=distribution.step)
        case Uniform() | LogUniform():
            is_log = isinstance(distribution, LogUniform)
            return told.FloatDistribution(distribution.low, distribution.high, log=is_log)
        case Fixed():
            raise AssertionError("a fixed value is not searched")
    raise ValueError(
        f"sampler optuna cannot search a {distribution.form!r} entry; use sampler: random"
    )


def _suggested(asked: optuna.trial.Trial, name: str, distribution: Distribution) -> Any:
    key, told = _key(name, distribution), _told(distribution)
    if hasattr(told, "choices"):
        return asked.suggest_categorical(key, told.choices)
    if isinstance(distribution, Uniform | LogUniform):
        return asked.suggest_float(key, told.low, told.high, log=told.log)
    return asked.suggest_int(key, told.low, told.high, log=told.log, step=told.step)


def _ordered(choice: Choice) -> list[Any] | None:
    """The values in rising order where they are numbers, None where they have no order."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in choice.values):
        return sorted(choice.values)
    return None


def _encoded(distribution: Distribution, value: Any) -> Any:
    if not isinstance(distribution, Choice):
        return int(value) if isinstance(distribution, Int) else float(value)
    values = _ordered(distribution) or distribution.values
    return [value_key(v) for v in values].index(value_key(value))


def _decoded(distribution: Distribution, told: Any) -> Any:
    if not isinstance(distribution, Choice):
        return told
    return plain((_ordered(distribution) or distribution.values)[told])


def _config_key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


@contextmanager
def _silenced() -> Iterator[Any]:
    """Optuna without its log lines and its remarks on experimental features."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)
