"""Where a steering trial's direction comes from: texts, finished vectors, an SAE, or groups.

A torch module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.kind import InputArtefact
from jobs.runners.language_models import model_of
from jobs.runners.needed_inputs import folder_of, needed
from jobs.runners.steer_groups import (
    composed_vectors,
    found_groups,
    group_instruction,
    group_meter,
)
from jobs.steer import (
    ComposedParameters,
    GivenParameters,
    LatentParameters,
    SteerParameters,
    VectorParameters,
)
from jobs.steer_setup import INSTRUCTIONS, NEEDS, SteerSetup
from sae.language_model import LanguageModel
from sae.trained_sae import SaeSpec, load_sae
from steering.directions import ContrastSpec, contrast
from steering.directions.contrast_pairs import ContrastPairs, read_contrast
from steering.directions.measured_norms import with_norms
from steering.directions.sae_directions import sae_latent_vectors
from steering.measures import EffectMeter, EffectSpec, open_effect
from steering.sae_check import check_model_name, check_sae
from steering.steerers import LatentSteerer, Steerer, VectorSteerer
from steering.vectors import SteeringVectors, load_vectors

__all__ = ["effect_of", "instruction_of", "steerer_of"]

logger = logging.getLogger(__name__)

EXAMPLES = 3
"""Texts shown where a request in words has to be made from a contrast."""


@lru_cache(maxsize=2)
def _meter_of(effect_json: str) -> EffectMeter:
    return open_effect(EffectSpec.model_validate_json(effect_json))


def effect_of(setup: SteerSetup, inputs: Sequence[InputArtefact]) -> EffectMeter:
    """What measures the effect, once a process. Raises BadSteeringInput, BadStyleData."""
    spec = setup.effect_or_contrast
    if spec is None:
        assert setup.groups is not None
        return group_meter(found_groups(setup.groups, inputs).model_dump_json())
    if spec.embedding == NEEDS:
        folder = str(folder_of(needed(inputs, "embedding")))
        spec = spec.model_copy(update={"embedding": folder})
    return _meter_of(spec.model_dump_json())


def instruction_of(setup: SteerSetup, inputs: Sequence[InputArtefact]) -> str:
    """How one would ask for it in words. Raises BadSteeringInput for what lacks its texts."""
    if setup.instruction is not None:
        return setup.instruction
    if setup.groups is not None:
        return group_instruction(found_groups(setup.groups, inputs).model_dump_json())
    spec = setup.contrast or (setup.effect.contrast if setup.effect else None)
    assert spec is not None
    if spec.builtin is not None and spec.builtin in INSTRUCTIONS:
        return INSTRUCTIONS[spec.builtin]
    examples = _pairs_of(spec.model_dump_json()).train.positive[:EXAMPLES]
    listed = "\n".join(f"- {text}" for text in examples)
    return f"Write your answer in the same style as these texts:\n{listed}"


def steerer_of(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: SteerParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[Steerer, Mapping[str, Any]]:
    """The direction of a trial's configuration, and what was found out on the way, as JSON.

    Raises:
        BadSteeringInput: vectors, SAE or texts cannot be used with this model.
        BadSae: the SAE cannot be loaded.
        UnknownHook: the model has no such layer.
    """
    if isinstance(parameters, LatentParameters):
        return _latent(lm, setup, parameters, prompts, inputs)
    found: Mapping[str, Any] = {}
    if isinstance(parameters, ComposedParameters):
        assert setup.groups is not None
        groups = found_groups(setup.groups, inputs)
        vectors, hook, composition = composed_vectors(lm, setup, groups, parameters)
        found = {"composition": composition}
    elif isinstance(parameters, GivenParameters):
        vectors, hook = _given(lm, setup, parameters, prompts, inputs)
    else:
        assert isinstance(parameters, VectorParameters)
        vectors, hook = _contrasted(lm, setup, parameters)
    steerer = VectorSteerer(vectors, hook, parameters.operation, parameters.positions)
    return steerer, {"formula": vectors.about.formula, **vectors.about.details, **found}


@lru_cache(maxsize=4)
def _pairs_of(contrast_json: str) -> ContrastPairs:
    return read_contrast(ContrastSpec.model_validate_json(contrast_json))


@lru_cache(maxsize=8)
def _vectors_of(
    model_json: str,
    device: str,
    contrast_json: str,
    hooks: tuple[str, ...],
    method: str,
    pooling: Any,
) -> SteeringVectors:
    """All layers of a sweep in one pass, for all trials that this process will have."""
    train = _pairs_of(contrast_json).train
    lm = model_of(model_json, device)
    return contrast(lm, train.positive, train.negative, hooks, method, pooling)


def _contrasted(
    lm: LanguageModel, setup: SteerSetup, parameters: SteerParameters
) -> tuple[SteeringVectors, str]:
    assert setup.contrast is not None
    said = parameters.model_dump()
    hooks = tuple(f"{setup.site}.{layer}" for layer in setup.layers)
    layer = setup.layers[0] if parameters.layer is None else parameters.layer
    vectors = _vectors_of(
        setup.model.model_dump_json(),
        str(lm.device),
        setup.contrast.model_dump_json(),
        hooks,
        said["method"],
        said["pooling"],
    )
    return vectors, f"{setup.site}.{layer}"


def _given(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: GivenParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[SteeringVectors, str]:
    assert setup.vectors is not None
    folder = Path(setup.vectors)
    if setup.vectors == NEEDS:
        folder = folder_of(needed(inputs, "vectors", parameters.input))
    vectors = load_vectors(folder)
    hook = vectors.about.suggested_hook or vectors.hooks[0]
    if parameters.layer is not None:
        hook = f"{setup.site}.{parameters.layer}"
    vectors = vectors.only(hook)
    vectors.check_model(lm, other_weights=setup.other_model)
    if vectors.norm_L[0] <= 0:
        vectors = with_norms(lm, vectors, prompts)
    return vectors, hook


def _latent(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: LatentParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[Steerer, Mapping[str, Any]]:
    spec = setup.sae
    if spec == NEEDS:
        spec = SaeSpec(folder=str(folder_of(needed(inputs, "sae", parameters.input))))
    assert isinstance(spec, SaeSpec)
    sae = load_sae(spec, lm.device)
    check_model_name(sae, setup.model, other_model=setup.sae_limits.other_model)
    hook = None if parameters.layer is None else f"{setup.site}.{parameters.layer}"
    checked = check_sae(lm, sae, prompts, setup.generation, hook=hook, limits=setup.sae_limits)
    logger.info("%s at %s: %s", sae.label, checked.hook, checked.fit)
    latent = parameters.latent
    vectors = sae_latent_vectors(lm, checked.sae, [latent], checked.hook, prompts)
    found = {"sae_check": checked.record, **vectors.about.details}
    if parameters.operation == "set_latent":
        positions = parameters.positions
        return LatentSteerer(vectors, checked.hook, checked.sae, latent, positions), found
    operation = parameters.operation
    return VectorSteerer(vectors, checked.hook, operation, parameters.positions), found
