"""Where a steering trial's direction comes from, and what its answers are held against.

A torch module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jobs.kind import InputArtefact
from jobs.runners.needed_inputs import folder_of, needed
from jobs.runners.steer_finished import given, probed
from jobs.runners.steer_groups import (
    composed_vectors,
    found_groups,
    group_instruction,
    group_meter,
    one_vs_rest_vectors,
)
from jobs.runners.steer_saes import latent_steerer, sae_difference
from jobs.runners.steer_texts import contrasted, generated, pairs_of
from jobs.steer_parameters import (
    ComposedParameters,
    ContrastParameters,
    GeneratedParameters,
    GivenParameters,
    LatentParameters,
    OneVsRestParameters,
    ProbeWeightsParameters,
    SaeDifferenceParameters,
    SteerParameters,
    VectorParameters,
)
from jobs.steer_setup import INSTRUCTIONS, NEEDS, SteerSetup
from sae.language_model import LanguageModel
from steering.measures import EffectMeter, EffectSpec, open_effect
from steering.steerers import Steerer, VectorSteerer
from steering.vectors import SteeringVectors

__all__ = ["effect_of", "instruction_of", "steerer_of"]

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
    examples = pairs_of(spec.model_dump_json()).train.positive[:EXAMPLES]
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
        return latent_steerer(lm, setup, parameters, prompts, inputs)
    assert isinstance(parameters, VectorParameters)
    vectors, hook, found = _vectors_of(lm, setup, parameters, prompts, inputs)
    steerer = VectorSteerer(vectors, hook, parameters.operation, parameters.positions)
    return steerer, {"formula": vectors.about.formula, **vectors.about.details, **found}


def _vectors_of(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: VectorParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[SteeringVectors, str, Mapping[str, Any]]:
    """Vectors, which of their hooks is meant, and what was found out on the way."""
    if isinstance(parameters, GivenParameters):
        return *given(lm, setup, parameters, prompts, inputs), {}
    if isinstance(parameters, ProbeWeightsParameters):
        return *probed(lm, setup, parameters, prompts, inputs), {}
    if isinstance(parameters, SaeDifferenceParameters):
        return sae_difference(lm, setup, parameters, prompts, inputs)
    hook = setup.hook_of(parameters.layer)
    if isinstance(parameters, GeneratedParameters):
        towards = instruction_of(setup, inputs)
        return generated(lm, setup, parameters, prompts, towards), hook, {}
    if isinstance(parameters, ContrastParameters):
        return contrasted(lm, setup, parameters), hook, {}
    assert setup.groups is not None
    groups = found_groups(setup.groups, inputs)
    if isinstance(parameters, OneVsRestParameters):
        return one_vs_rest_vectors(lm, setup, groups, parameters), hook, {}
    assert isinstance(parameters, ComposedParameters)
    vectors, hook, composition = composed_vectors(lm, setup, groups, parameters)
    return vectors, hook, {"composition": composition}
