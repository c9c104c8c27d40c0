"""The objective: 1 for what the unsteered run is, 0 as soon as one part is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steering.errors import BadSteeringInput
from steering.measures import Fluency, Measured, harmonic_mean, overall, score_intervals, scores


def measured(effect: float, **changes: Any) -> Measured:
    """Six answers that are alike but for a little noise in their perplexity."""
    log_perplexity = changes.get("log_perplexity", 2.0)
    ones = np.ones(6)
    noise = np.linspace(-0.2, 0.2, 6)
    num_tokens = np.full(6, changes.get("num_tokens", 10.0))
    logs = np.full(6, np.nan) if not num_tokens.any() else log_perplexity + noise
    return Measured(
        effect * ones,
        changes.get("cosine", 0.6) * ones,
        Fluency(logs, num_tokens, ones, ones, changes.get("repeats", 0.0) * ones, ones),
    )


def test_the_unsteered_run_is_fully_relevant_and_fluent() -> None:
    reference = measured(0.2)
    found = scores(reference, reference)
    assert (found.relevance, found.fluency) == (1.0, 1.0)
    assert found.effect == pytest.approx(0.2)
    assert found.overall == pytest.approx(3 / (1 / 0.2 + 2))


def test_fluency_is_the_ratio_of_perplexities_and_never_above_one() -> None:
    reference = measured(0.2)
    worse = scores(measured(0.9, log_perplexity=3.0), reference)
    assert worse.fluency == pytest.approx(np.exp(-1))
    assert scores(measured(0.9, log_perplexity=1.0), reference).fluency == 1.0


def test_a_loop_is_not_fluent_however_low_its_perplexity() -> None:
    found = scores(measured(1.0, log_perplexity=0.1, repeats=0.95), measured(0.2))
    assert found.fluency == pytest.approx(0.05)


def test_what_is_lost_takes_all_with_it() -> None:
    reference = measured(0.2)
    assert overall(measured(0.0), reference) == 0.0
    assert overall(measured(1.0, cosine=-0.1), reference) == 0.0
    assert overall(measured(1.0, num_tokens=0.0), reference) == 0.0
    assert harmonic_mean(1.0, 0.5, 0.5) == pytest.approx(0.6)


def test_half_of_the_answers_being_empty_halves_fluency() -> None:
    half = measured(0.9)
    half.fluency.num_tokens_N[:3] = 0.0
    half.fluency.log_perplexity_N[:3] = np.nan
    half.fluency.log_perplexity_N[3:] = 2.0
    reference = measured(0.2)
    reference.fluency.log_perplexity_N[:] = 2.0
    assert scores(half, reference).fluency == pytest.approx(0.5)


def test_intervals_hold_the_estimate_and_come_of_prompts() -> None:
    generator = np.random.default_rng(0)
    one = measured(0.5)
    one.effect_N[:] = generator.uniform(0.3, 0.7, 6)
    found = score_intervals(one, measured(0.2), range(6))
    assert set(found) == {"overall", "effect", "relevance", "fluency"}
    effect = found["effect"]
    assert effect.low < effect.estimate < effect.high
    assert effect.estimate == pytest.approx(one.effect_N.mean())
    assert found["overall"].estimate == pytest.approx(overall(one, measured(0.2)))


def test_answers_to_other_prompts_than_the_references_are_refused() -> None:
    with pytest.raises(BadSteeringInput, match="same prompts, at least one; got 3 and 6"):
        scores(measured(0.5).take([0, 1, 2]), measured(0.2))
