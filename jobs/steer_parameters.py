"""What trials of a steering sweep may vary: the methods, and what of the setup each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from jobs.composed_setup import CompositionParameters
from steering.directions import method_names

if TYPE_CHECKING:
    from jobs.steer_setup import SteerSetup

__all__ = [
    "ComposedParameters",
    "ContrastParameters",
    "GeneratedParameters",
    "GivenParameters",
    "LatentParameters",
    "OneVsRestParameters",
    "ProbeWeightsParameters",
    "SaeDifferenceParameters",
    "SteerParameters",
    "VectorParameters",
    "implied_method",
    "method_faults",
    "parameters_by_method",
]

Pooling = Literal["last", "mean", "max", "first"]


class SteerParameters(BaseModel):
    """What trials of every method may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    layer: int | None = Field(default=None, ge=0)
    """Opened by `layers`; without them, the hook of the vectors or of the SAE."""
    strength: float | None = None
    """As a fraction of the median residual norm at the layer; not given: the best of `strengths`.
    For project_out the share of the component that is removed."""
    positions: Literal["all", "prompt", "generated", "last"] = "all"
    """Which tokens are changed; last is the prompt's last token."""
    seed: int = Field(default=0, ge=0)
    """Of sampling and of the random direction: search it to see the spread."""


class VectorParameters(SteerParameters):
    """A vector."""

    operation: Literal["add", "add_preserving_norm", "project_out", "clamp"] = "add"
    """What is done with the direction: added; added and scaled back to the old norm; its component
    removed; its component set to the strength."""


class ContrastParameters(VectorParameters):
    """A direction made from texts on two sides."""

    pooling: Pooling = "last"
    """Which of a text's tokens are read."""


class GivenParameters(VectorParameters):
    """A finished vector."""

    method: Literal["given"] = "given"
    input: int = Field(default=0, ge=0)
    """Which of the vectors that the sweep `needs`, the best being 0."""


class ComposedParameters(VectorParameters, CompositionParameters):
    """A group's vector, composed of those of style attributes."""

    method: Literal["composed"] = "composed"


class OneVsRestParameters(VectorParameters):
    """The mean of the target's texts against that of all other groups' (arXiv:2402.01618)."""

    method: Literal["one_vs_rest"] = "one_vs_rest"
    pooling: Pooling = "last"
    """Which of a text's tokens are read."""


class GeneratedParameters(VectorParameters):
    """Answers that were asked for in words against those that were not, both without the asking."""

    method: Literal["generated"] = "generated"
    pooling: Pooling = "mean"
    """Which of an answer's tokens are read."""
    draws: int = Field(default=4, gt=0)
    """Answers to each prompt and side; how alike their directions are is in the record."""
    draw_temperature: float = Field(default=1.0, ge=0)
    """At which they are sampled."""
    draw_seed: int = Field(default=0, ge=0)
    """Of their sampling; answers of equal draws, temperature and seed are shared by trials."""


class SaeDifferenceParameters(VectorParameters):
    """The difference of both sides' mean latents, decoded: what of it an SAE can name."""

    method: Literal["sae_mean_difference"] = "sae_mean_difference"
    pooling: Literal["mean", "last", "first"] = "mean"
    """At which of a text's tokens latents are taken."""
    num_latents: int | None = Field(default=None, gt=0)
    """So many latents, those that differ most; not given: all."""
    input: int = Field(default=0, ge=0)
    """Which of the SAEs that the sweep `needs`, the best being 0."""


class ProbeWeightsParameters(VectorParameters):
    """The weights of a linear probe: what it tells the sides apart by, which need not move them."""

    method: Literal["probe"] = "probe"
    label: str | None = None
    """Which of the probe's labels; not given: its only one."""
    input: int = Field(default=0, ge=0)
    """Which of the probes that the sweep `needs`, the best being 0."""


class LatentParameters(SteerParameters):
    """A latent of an SAE."""

    method: Literal["sae_latent"] = "sae_latent"
    latent: int = Field(default=0, ge=0)
    """Opened by `latents`."""
    input: int = Field(default=0, ge=0)
    """Which of the SAEs that the sweep `needs`, the best being 0."""
    operation: Literal["add", "add_preserving_norm", "project_out", "clamp", "set_latent"] = "add"
    """As for vectors, with the latent's decoder row. set_latent: the latent itself is set, to where
    its row is as long as the strength says (0: off); what the SAE leaves out is kept."""


@cache
def _contrast_parameters(method: str) -> type[BaseModel]:
    named: Any = (Literal[method], method)
    model: type[BaseModel] = create_model(
        f"{method.title().replace('_', '')}Parameters",
        __base__=ContrastParameters,
        __doc__=ContrastParameters.__doc__,
        method=named,
    )
    return model


_BY_NAME: Mapping[str, type[SteerParameters]] = {
    "given": GivenParameters,
    "sae_latent": LatentParameters,
    "composed": ComposedParameters,
    "one_vs_rest": OneVsRestParameters,
    "generated": GeneratedParameters,
    "sae_mean_difference": SaeDifferenceParameters,
    "probe": ProbeWeightsParameters,
}
_CONTRAST = (("contrast",),)
_TAKES: Mapping[str, Sequence[Sequence[str]]] = {
    "given": (("vectors",),),
    "sae_latent": (("sae",),),
    "composed": (("groups",),),
    "one_vs_rest": (("groups",),),
    "probe": (("probe",),),
    "generated": (("contrast",), ("groups",)),
    "sae_mean_difference": (("contrast", "sae"),),
}
"""Method -> the keys of the setup that it makes its direction of, in one way or another; all other
methods: a contrast."""


def parameters_by_method() -> Mapping[str, type[BaseModel]]:
    """All methods; those of a contrast alone in front."""
    return {**{name: _contrast_parameters(name) for name in method_names()}, **_BY_NAME}


def implied_method(setup: SteerSetup) -> str | None:
    """What a sweep gets that names no method; None where it has to, as for a contrast."""
    if setup.contrast is not None:
        return None if setup.sae is None else "sae_mean_difference"
    if setup.groups is not None:
        return "composed"
    if setup.probe is not None:
        return "probe"
    return "given" if setup.sae is None else "sae_latent"


def method_faults(setup: SteerSetup, config: Mapping[str, Any]) -> list[str]:
    """Methods that cannot be with this setup, and fields of theirs that cannot be together."""
    method = config.get("method")
    if method is None:
        return []
    fault = _source_fault(setup, str(method))
    if fault is not None:
        return [fault]
    if method == "generated":
        return _drawing_faults(setup, config)
    if method == "one_vs_rest":
        return _texts_faults(setup)
    return []


def _source_fault(setup: SteerSetup, method: str) -> str | None:
    ways = _TAKES.get(method, _CONTRAST)
    lacking = [[key for key in keys if getattr(setup, key) is None] for keys in ways]
    if setup.contrast is not None and not any("contrast" in keys for keys in ways):
        fitting = [name for name in parameters_by_method() if _fits_contrast(setup, name)]
        return f"method={method!r} makes nothing of a contrast; use one of {', '.join(fitting)}"
    if [] not in lacking:
        if "contrast" in lacking[0]:
            return f"method={method!r} makes a direction of texts; give contrast: ..."
        return f"method={method!r} needs {lacking[0][0]}: ..., which is not there; give it"
    if setup.sae is not None and not setup.layers and not any("sae" in keys for keys in ways):
        return f"method={method!r} needs layers: ..., at which to steer, such as [10, 15]; give it"
    return None


def _fits_contrast(setup: SteerSetup, method: str) -> bool:
    return any(
        "contrast" in keys and all(getattr(setup, key) is not None for key in keys)
        for keys in _TAKES.get(method, _CONTRAST)
    )


def _drawing_faults(setup: SteerSetup, config: Mapping[str, Any]) -> list[str]:
    found = GeneratedParameters.model_validate(config)
    faults = []
    if found.draws > 1 and found.draw_temperature == 0:
        faults.append(
            f"draws={found.draws} at draw_temperature=0 are the same answer so many times; write "
            "draws: 1, or a temperature above 0"
        )
    if setup.instruction is not None and setup.instruction.strip() == setup.drawing.away.strip():
        faults.append(
            f"method='generated' compares instruction with drawing.away, and both are "
            f"{setup.instruction!r}; let away ask for the opposite, or leave it out"
        )
    return faults


def _texts_faults(setup: SteerSetup) -> list[str]:
    assert setup.groups is not None
    data = setup.groups.data
    if data is None or data.has_text:
        return []
    return [
        "method='one_vs_rest' reads the groups' texts, and groups.data has vectors alone; name "
        "the column of the texts (text: NAME), or use method composed"
    ]
