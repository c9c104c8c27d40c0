"""A steering trial's direction that is there already: finished vectors, or a probe's weights.

A torch module.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.kind import InputArtefact
from jobs.runners.needed_inputs import folder_of, needed
from jobs.steer_parameters import GivenParameters, ProbeWeightsParameters
from jobs.steer_setup import NEEDS, PROBE_REPORT, SteerSetup
from sae.language_model import LanguageModel
from steering.directions.measured_norms import with_norms
from steering.directions.probe_directions import probe_vectors
from steering.errors import BadSteeringInput
from steering.probes.method import FittedProbe
from steering.vectors import SteeringVectors, load_vectors

__all__ = ["given", "probed"]

PROBE = "probe"


def given(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: GivenParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[SteeringVectors, str]:
    """Finished vectors and the hook to use. Raises BadSteeringInput, UnknownHook."""
    assert setup.vectors is not None
    folder = _folder(setup.vectors, "vectors", parameters.input, inputs)
    vectors = load_vectors(folder)
    hook = vectors.about.suggested_hook or vectors.hooks[0]
    if parameters.layer is not None:
        hook = f"{setup.site}.{parameters.layer}"
    vectors = vectors.only(hook)
    vectors.check_model(lm, other_weights=setup.other_model)
    if vectors.norm_L[0] <= 0:
        vectors = with_norms(lm, vectors, prompts)
    return vectors, hook


def probed(
    lm: LanguageModel,
    setup: SteerSetup,
    parameters: ProbeWeightsParameters,
    prompts: Sequence[str],
    inputs: Sequence[InputArtefact],
) -> tuple[SteeringVectors, str]:
    """A label's weights, and the hook that the probe reads.

    Raises:
        BadSteeringInput: no such probe or label, or one that is not linear in activations.
        UnknownHook: the model lacks the hook.
    """
    assert setup.probe is not None
    folder = _folder(setup.probe, "probe", parameters.input, inputs)
    if not (folder / PROBE_REPORT).is_file():
        raise BadSteeringInput(
            f"{folder} has no {PROBE_REPORT}; name the folder of a finished probe"
        )
    said: dict[str, Any] = json.loads((folder / PROBE_REPORT).read_text(encoding="utf-8"))
    hook = str(said["best"])
    _check_readable(said, setup)
    place = _label_of(said, parameters.label)
    fitted = FittedProbe.load(folder / PROBE)
    vectors = probe_vectors(lm, {hook: fitted.weights()[place]}, prompts, method=fitted.method)
    return vectors, hook


def _folder(named: str, kind: str, place: int, inputs: Sequence[InputArtefact]) -> Path:
    return folder_of(needed(inputs, kind, place)) if named == NEEDS else Path(named)


def _check_readable(said: dict[str, Any], setup: SteerSetup) -> None:
    about = said["about"]
    if said["best"] in about["saes"]:
        raise BadSteeringInput(
            f"the probe reads latents of the SAE {said['best']!r}, and its weights are on those; "
            "steer with its best latents (sae: ..., latents: [...]), or take a probe of activations"
        )
    if about["model"] != setup.model.label and not setup.other_model:
        raise BadSteeringInput(
            f"the probe reads {about['model']}, and {setup.model.label} is steered; name that "
            "model, or write other_model: true"
        )


def _label_of(said: dict[str, Any], label: str | None) -> int:
    names = [one["name"] for one in said["labels"]["labels"]]
    if label is None and len(names) > 1:
        raise BadSteeringInput(
            f"the probe has {len(names)} labels: {', '.join(names)}; write label: {names[0]}, or "
            "search label over some"
        )
    if label is not None and label not in names:
        raise BadSteeringInput(f"the probe has no label {label!r}; it has {', '.join(names)}")
    return 0 if label is None else names.index(label)
