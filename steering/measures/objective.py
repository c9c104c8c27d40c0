"""Effect, relevance and fluency as one number: a harmonic mean against a fixed reference.

After AxBench's overall score (Wu et al. 2025, section 3), whose judge is replaced by measures that
need none: each of the three lies within 0 and 1, the unsteered run has relevance 1 and fluency 1,
and the mean is 0 as soon as one of them is. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import Interval, interval_of
from steering.measures.fluency import Fluency

__all__ = ["Measured", "Scores", "harmonic_mean", "overall", "score_intervals", "scores"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measured:
    """The answers of one condition, a row each, as they were measured."""

    effect_N: Array
    """Within 0 and 1."""
    relevance_N: Array
    """Cosines."""
    fluency: Fluency

    def __len__(self) -> int:
        return len(self.effect_N)

    def take(self, rows: Sequence[int] | Array) -> Measured:
        """Some rows, repeats allowed."""
        at = np.asarray(rows, dtype=np.int64)
        return Measured(self.effect_N[at], self.relevance_N[at], self.fluency.take(at))


@dataclass(frozen=True)
class Scores:
    """What a condition comes to, each within 0 and 1."""

    overall: float
    effect: float
    """Mean of what the effect's classifier or margin says."""
    relevance: float
    """Mean cosine over the unsteered run's, at most 1."""
    fluency: float
    """Unsteered perplexity over this one, at most 1, times the share of token triples that are no
    repeats over the unsteered run's, at most 1, times the share of answers that are not empty."""


def harmonic_mean(*parts: float) -> float:
    """Harmonic mean of numbers within 0 and 1; 0 if any of them is 0."""
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1.0 / part for part in parts)


def overall(measured: Measured, reference: Measured) -> float:
    """Harmonic mean of effect, relevance and fluency; see `scores`."""
    return scores(measured, reference).overall


def scores(measured: Measured, reference: Measured) -> Scores:
    """Map a condition's means to 0..1, with the unsteered answers to the same prompts as reference.

    Raises:
        BadSteeringInput: no answers, or not as many as the reference has.
    """
    _check_pairs(measured, reference)
    means, reference_means = _columns(measured), _columns(reference)
    return _scores(means.mean(axis=0), reference_means.mean(axis=0))


def score_intervals(
    measured: Measured, reference: Measured, prompts: Sequence[Any], *, seed: int = 0
) -> dict[str, Interval]:
    """Each of the four scores with its bootstrap interval over prompts.

    Both conditions are resampled together, so the reference's own noise is part of the interval.

    Args:
        prompts: for each row the prompt it answers.

    Raises:
        BadSteeringInput: fewer than two prompts, or other rows than the reference has.
    """
    _check_pairs(measured, reference)
    own, theirs = _columns(measured), _columns(reference)
    found: dict[str, Interval] = {}
    for name in ("overall", "effect", "relevance", "fluency"):

        def statistic(rows: Array, name: str = name) -> float:
            value: float = getattr(_scores(own[rows].mean(axis=0), theirs[rows].mean(axis=0)), name)
            return value

        found[name] = interval_of(statistic, prompts, seed=seed)
    return found


def _check_pairs(measured: Measured, reference: Measured) -> None:
    if len(measured) != len(reference) or not len(measured):
        raise BadSteeringInput(
            f"a condition and its reference must answer the same prompts, at least one; got "
            f"{len(measured)} and {len(reference)} answers"
        )


def _columns(measured: Measured) -> Array:
    """[N, 5]: effect, cosine, log-perplexity (0 if empty), has tokens, has no repeats."""
    own = measured.fluency
    has_tokens_N = own.num_tokens_N > 0
    log_perplexity_N = np.where(has_tokens_N, own.log_perplexity_N, 0.0)
    fresh_N = np.where(has_tokens_N, 1.0 - own.repeated_3grams_N, 0.0)
    columns = (measured.effect_N, measured.relevance_N, log_perplexity_N, has_tokens_N, fresh_N)
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _scores(own: Array, reference: Array) -> Scores:
    effect, cosine, log_perplexity, has_tokens, fresh = (float(mean) for mean in own)
    _, cosine_0, log_perplexity_0, has_tokens_0, fresh_0 = (float(mean) for mean in reference)
    if has_tokens > 0 and has_tokens_0 > 0:
        worse = log_perplexity / has_tokens - log_perplexity_0 / has_tokens_0
        # Empty answers hold no fresh triples, so their share is part of this ratio.
        fluent = float(np.exp(-max(0.0, worse))) * _ratio(fresh, fresh_0)
    else:
        fluent = 0.0
    effect, relevant = min(1.0, max(0.0, effect)), _ratio(cosine, cosine_0)
    return Scores(harmonic_mean(effect, relevant, fluent), effect, relevant, fluent)


def _ratio(value: float, reference: float) -> float:
    """Within 0 and 1; 1 where there is nothing to lose."""
    return 1.0 if reference <= 0 else min(1.0, max(0.0, value / reference))
