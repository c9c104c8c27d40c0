"""What a steering trial comes to on the prompts that its strength was not chosen on. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from steering.intervals import paired_interval
from steering.measures import score_intervals
from steering.measures.answers import AnswerTable, Condition

__all__ = ["CONDITIONS", "notes_of", "results_of"]

CONDITIONS: tuple[Condition, ...] = ("steered", "unsteered", "prompted", "random")
WORST_PERPLEXITY = 1e6
STEADY_COSINE = 0.5
"""Between directions of two draws; below it more of their squared length is noise than not."""


def results_of(table: AnswerTable, strength: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Final metrics, and what the record says of every condition with intervals over prompts."""
    unsteered = table.of("unsteered", "test")
    said: dict[str, Any] = {}
    for condition in CONDITIONS:
        at = strength if condition in ("steered", "random") else None
        said[condition] = _condition(table.of(condition, "test", at), unsteered)
    steered = table.of("steered", "test", strength)
    said["effect_over_unsteered"] = asdict(
        paired_interval(steered.measured.effect_N, unsteered.measured.effect_N)
    )
    prompted = table.of("prompted", "test").measured.effect_N
    said["effect_over_prompted"] = asdict(paired_interval(steered.measured.effect_N, prompted))
    own: Mapping[str, Any] = said["steered"]
    names = ("overall", "effect", "relevance", "fluency")
    metrics = {f"test_{name}": float(own[name]["estimate"]) for name in names}
    metrics |= {
        "test_perplexity": WORST_PERPLEXITY if own["perplexity"] is None else own["perplexity"],
        "unsteered_effect": float(said["unsteered"]["effect"]["estimate"]),
        "prompted_overall": float(said["prompted"]["overall"]["estimate"]),
        "random_overall": float(said["random"]["overall"]["estimate"]),
    }
    return metrics, {"test": said, "num_test": len(steered.rows)}


def _condition(answers: AnswerTable, unsteered: AnswerTable) -> dict[str, Any]:
    measured = answers.measured
    found = score_intervals(measured, unsteered.measured, answers.prompts)
    means = asdict(measured.fluency.mean())
    if means["perplexity"] != means["perplexity"]:  # no answer has a token
        means["perplexity"] = None
    cosine = float(measured.relevance_N.mean())
    return {**{name: asdict(one) for name, one in found.items()}, **means, "cosine": cosine}


def notes_of(found: Mapping[str, Any], hook: str) -> list[str]:
    """What a reader of the answers should know of a direction, such as how steady it is.

    Args:
        found: what making the direction brought to light, as the record has it.
        hook: where it is added.
    """
    if "cosine_between_draws" not in found:
        return []
    spread = found["cosine_between_draws"].get(hook)
    if spread is None:
        return ["One draw: how much of the direction is chance is not known; draws: 4 would say."]
    said = (
        f"The mean of {found['draws']} draws: two of their directions have a cosine of "
        f"{spread['mean']:.2f} on average, of {spread['least']:.2f} at least."
    )
    if spread["mean"] < STEADY_COSINE:
        said += " Much of it is chance: more draws, or more prompts (drawing.num_prompts), help."
    return [said]
