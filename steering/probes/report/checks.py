"""What a probe's number has to stand beside, measured with the probe's own recipe.

Every control is a plain dictionary: `value`, `low`, `high`, and a verdict in words where there is
one. A control that cannot be measured says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steering.errors import BadSteeringInput
from steering.probes.controls import (
    random_latents_control,
    selectivity,
    shuffled_control,
    triviality_baselines,
)
from steering.probes.evaluation import evaluate, number_json
from steering.probes.features import FeatureSpec
from steering.probes.matrices import Array
from steering.probes.method import FittedProbe
from steering.probes.parts import Parts, fit_parts, macro_auroc
from steering.probes.study import ProbeStudy

__all__ = ["RANDOM_LATENTS", "controls_of"]

RANDOM_LATENTS = 16
"""Latents whose random stand-ins are looked at, where the probe reads more."""

Said = dict[str, Any]


def controls_of(
    study: ProbeStudy, source: str, split_seed: int, probe: FittedProbe, raw: FeatureSpec | None
) -> dict[str, Said]:
    """All controls of one source on one split.

    Args:
        raw: activations at the hook and pooling of an SAE's latents; None where the source is
            activations already.
    """
    parts = study.parts(source, split_seed)
    found = {
        "shuffled_labels": _tried(lambda: _shuffled(study, source, split_seed, parts)),
        "selectivity": _tried(lambda: _selectivity(study, source, split_seed, parts)),
        **_baselines(study, source, split_seed),
    }
    if raw is not None:
        found["raw_logistic"] = _tried(lambda: _raw(study, raw, split_seed))
        found["random_latents"] = _tried(lambda: _random_latents(study, source, parts, probe))
    return found


def _tried(measure: Callable[[], Said]) -> Said:
    try:
        return measure()
    except BadSteeringInput as error:
        return {"value": None, "skipped": str(error)}


def _shuffled(study: ProbeStudy, source: str, split_seed: int, parts: Parts) -> Said:
    recipe = study.recipe
    found = shuffled_control(
        recipe.method,
        recipe.parameters,
        parts,
        seed=recipe.seed,
        imbalance=recipe.imbalance,
        judge=study.judge(study.spec_by_source[source], split_seed),
    )
    expected = {"low": found.low, "high": found.high}
    return {"value": found.mean, "expected": expected, "verdict": found.verdict}


def _selectivity(study: ProbeStudy, source: str, split_seed: int, parts: Parts) -> Said:
    recipe, spec = study.recipe, study.spec_by_source[source]
    is_by_text = spec.is_bag or not spec.is_by_token or study.is_judged_by_text(spec)
    if is_by_text or study.table.tokens is None:
        raise BadSteeringInput(
            "for tokens with spans only: no item is in two parts, so nobody could learn random "
            "labels by item, and this would be the distance to 0.5"
        )
    token_S, rows = study.table.tokens.token_S, study.rows(source, split_seed)
    types = tuple(token_S[rows[part]].tolist() for part in ("train", "validation", "test"))
    found = selectivity(
        recipe.method,
        recipe.parameters,
        parts,
        types,
        imbalance=recipe.imbalance,
        judge=study.judge(spec, split_seed),
    )
    return {
        "value": found.difference.mean,
        "low": found.difference.low,
        "high": found.difference.high,
        "control_auroc": found.control.mean,
        "recurring_share": found.recurring_share,
    }


def _baselines(study: ProbeStudy, source: str, split_seed: int) -> Mapping[str, Said]:
    parts, texts = study.surface(source, split_seed)
    test = parts.test
    try:
        found = triviality_baselines(parts, texts, label_names=study.label_names)
    except BadSteeringInput as error:
        return {"bag_of_words": {"value": None, "skipped": str(error)}}
    return {
        name: _with_interval(study, one.test_NL, test.y_NL, test.items, one.test_auroc)
        for name, one in found.items()
    }


def _raw(study: ProbeStudy, raw: FeatureSpec, split_seed: int) -> Said:
    """Logistic regression; of bags, which it does not read, the probe's own method."""
    parts, recipe = study.parts_of_spec(raw, split_seed), study.recipe
    method = (recipe.method, recipe.parameters) if raw.is_bag else ("logistic_l2", {})
    fitted = fit_parts(*method, parts, label_names=study.label_names)
    score_NL = fitted.scores(parts.test.x)
    score_NL, y_NL, items = study.judged(raw, split_seed, "test", parts.test, score_NL)
    found = _with_interval(study, score_NL, y_NL, items, macro_auroc(score_NL, y_NL))
    return found | {"remark": f"by {recipe.method}"} if raw.is_bag else found


def _with_interval(
    study: ProbeStudy, score_NL: Array, y_NL: Array, items: Array, auroc: float
) -> Said:
    task = "multilabel" if study.table.labelled.task == "multiclass" else study.table.labelled.task
    found = evaluate(score_NL, y_NL, items.tolist(), task=task)
    interval = found.metrics["auroc"]
    return {
        "value": number_json(auroc),
        "low": number_json(interval.low),
        "high": number_json(interval.high),
    }


def _random_latents(study: ProbeStudy, source: str, parts: Parts, probe: FittedProbe) -> Said:
    if study.is_judged_by_text(study.spec_by_source[source]):
        raise BadSteeringInput(
            "tokens without spans are judged by the text; random latents are not"
        )
    chosen = probe.columns(0)[:RANDOM_LATENTS]
    found = random_latents_control(parts.as_rows(), chosen)
    return {"value": found.mean, "low": found.low, "high": found.high, "latents": len(chosen)}
