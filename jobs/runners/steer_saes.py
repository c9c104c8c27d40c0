"""A steering trial's direction from an SAE: a latent, or where two sides' latents differ.

A torch module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.kind import InputArtefact
from jobs.runners.needed_inputs import folder_of, needed
from jobs.runners.steer_texts import pairs_of
from jobs.steer_parameters import LatentParameters, SaeDifferenceParameters
from jobs.steer_setup import NEEDS, SteerSetup
from sae.language_model import LanguageModel
from sae.trained_sae import SaeSpec, load_sae
from steering.directions.sae_directions import sae_latent_vectors, sae_mean_difference
from steering.errors import BadSteeringInput
from steering.sae_check import CheckedSae, check_model_name, check_sae
from steering.steerers import LatentSteerer, Steerer, VectorSteerer
from steering.vectors import SteeringVectors

__all__ = ["latent_steerer", "sae_difference"]

logger = logging.getLogger(__name__)


def latent_steerer(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: LatentParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[Steerer, Mapping[str, Any]]:
    """A latent's decoder row, or the latent itself. Raises as `sae_difference`."""
    hook = None if parameters.layer is None else f"{setup.site}.{parameters.layer}"
    checked = _checked_sae(lm, setup, parameters.input, prompts, inputs, hook)
    latent = parameters.latent
    vectors = sae_latent_vectors(lm, checked.sae, [latent], checked.hook, prompts)
    found = {"sae_check": checked.record, **vectors.about.details}
    if parameters.operation == "set_latent":
        positions = parameters.positions
        return LatentSteerer(vectors, checked.hook, checked.sae, latent, positions), found
    operation = parameters.operation
    return VectorSteerer(vectors, checked.hook, operation, parameters.positions), found


def sae_difference(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: SaeDifferenceParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[SteeringVectors, str, Mapping[str, Any]]:
    """The vector, its hook, and how well the SAE fits the prompts, as JSON.

    Raises:
        BadSteeringInput: the SAE does not explain the prompts, or has fewer latents.
        BadSae: it cannot be loaded.
        UnknownHook: the model has no such layer.
    """
    assert setup.contrast is not None
    train = pairs_of(setup.contrast.model_dump_json()).train
    checked = _checked_sae(lm, setup, parameters.input, prompts, inputs, None)
    wanted = parameters.num_latents
    if wanted is not None and wanted > checked.sae.d_sae:
        raise BadSteeringInput(
            f"num_latents={wanted} is more than the {checked.sae.d_sae} latents of "
            f"{checked.sae.label}; lower it, or leave it out to take all"
        )
    hook = setup.hook_of(parameters.layer) if setup.layers else checked.hook
    vectors = sae_mean_difference(
        lm,
        checked.sae,
        train.positive,
        train.negative,
        hook,
        parameters.pooling,
        read_hook=checked.hook,
        num_latents=wanted,
    )
    return vectors, hook, {"sae_check": checked.record}


def _checked_sae(
    lm: LanguageModel,
    setup: SteerSetup,
    place: int,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
    hook: str | None,
) -> CheckedSae:
    spec, label = setup.sae, None
    if spec == NEEDS:
        artefact = needed(inputs, "sae", place)
        spec, label = SaeSpec(folder=str(folder_of(artefact))), artefact.id
    assert isinstance(spec, SaeSpec)
    sae = load_sae(spec, lm.device, label=label)
    check_model_name(sae, setup.model, other_model=setup.sae_limits.other_model)
    checked = check_sae(lm, sae, prompts, setup.generation, hook=hook, limits=setup.sae_limits)
    logger.info("%s at %s: %s", sae.label, checked.hook, checked.fit)
    return checked
