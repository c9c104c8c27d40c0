"""A steering trial's direction from texts on two sides, or from answers asked for in words.

A torch module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from filelock import FileLock

from jobs.runners.language_models import model_of
from jobs.steer_parameters import ContrastParameters, GeneratedParameters
from jobs.steer_setup import DrawingSpec, SteerSetup
from sae.language_model import LanguageModel
from sae.model_files import cache_dir
from steering.directions import ContrastSpec, contrast
from steering.directions.contrast_pairs import ContrastPairs, read_contrast
from steering.directions.generated_answers import generated_vectors
from steering.errors import BadSteeringInput
from steering.generation.spec import GenerationSpec
from steering.prompt_banks import find_bank
from steering.vectors import SteeringVectors

__all__ = ["contrasted", "drawing_prompts", "generated", "pairs_of"]


@lru_cache(maxsize=4)
def pairs_of(contrast_json: str) -> ContrastPairs:
    """The texts of a contrast, once a process. Raises BadSteeringInput."""
    return read_contrast(ContrastSpec.model_validate_json(contrast_json))


def contrasted(
    lm: LanguageModel, setup: SteerSetup, parameters: ContrastParameters
) -> SteeringVectors:
    """Vectors of all layers by one of the methods of `steering.directions.method_names()`.

    Raises:
        BadSteeringInput: texts that cannot be used.
        UnknownHook: the model has no such layer.
    """
    assert setup.contrast is not None
    return _contrasted(
        setup.model.model_dump_json(),
        str(lm.device),
        setup.contrast.model_dump_json(),
        setup.hooks,
        parameters.model_dump()["method"],
        parameters.pooling,
    )


@lru_cache(maxsize=8)
def _contrasted(
    model_json: str,
    device: str,
    contrast_json: str,
    hooks: tuple[str, ...],
    method: str,
    pooling: Any,
) -> SteeringVectors:
    """All layers of a sweep in one pass, for all trials that this process will have."""
    train = pairs_of(contrast_json).train
    lm = model_of(model_json, device)
    return contrast(lm, train.positive, train.negative, hooks, method, pooling)


def generated(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: GeneratedParameters,
    prompts: Sequence[str],
    towards: str,
) -> SteeringVectors:
    """Vectors of all layers from answers to other prompts than the sweep's own.

    Args:
        prompts: those of the sweep, which no direction may have seen.
        towards: how one asks for it in words.

    Raises:
        BadSteeringInput: no prompts are left, or both sides are asked for the same.
        UnknownHook: the model has no such layer.
    """
    sampled = {"temperature": parameters.draw_temperature, "seed": parameters.draw_seed}
    return _generated(
        setup.model.model_dump_json(),
        str(lm.device),
        drawing_prompts(setup.drawing, prompts),
        (towards, setup.drawing.away),
        setup.hooks,
        parameters.draws,
        setup.generation.model_copy(update=sampled).model_dump_json(),
        parameters.pooling,
    )


def drawing_prompts(spec: DrawingSpec, prompts: Sequence[str]) -> tuple[str, ...]:
    """Prompts that directions are drawn from: the first that are not the sweep's own.

    Raises:
        BadSteeringInput: there are none, or the file cannot be read.
    """
    found = spec.prompts
    if isinstance(found, str):
        found = tuple(prompt.text for prompt in find_bank(found).prompts)
    left = tuple(text for text in dict.fromkeys(found) if text not in set(prompts))
    if not left:
        raise BadSteeringInput(
            f"all {len(found)} prompts of drawing are prompts of the sweep, and a direction may "
            "not have seen what it is measured by; name others (drawing: {prompts: FILE}), or "
            "lower num_prompts"
        )
    return left[: spec.num_prompts]


@lru_cache(maxsize=4)
def _generated(
    model_json: str,
    device: str,
    prompts: tuple[str, ...],
    sides: tuple[str, str],
    hooks: tuple[str, ...],
    draws: int,
    spec_json: str,
    pooling: Any,
) -> SteeringVectors:
    said = json.dumps([model_json, device, prompts, sides, draws, spec_json])
    name = hashlib.sha256(said.encode()).hexdigest()[:32]
    keep = cache_dir() / "steering" / "drawn" / f"{name}.jsonl"
    keep.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{keep}.lock"):  # one trial of the machine generates, the others wait
        return generated_vectors(
            model_of(model_json, device),
            prompts,
            sides[0],
            hooks,
            away=sides[1],
            draws=draws,
            spec=GenerationSpec.model_validate_json(spec_json),
            pooling=pooling,
            keep=keep,
        )
