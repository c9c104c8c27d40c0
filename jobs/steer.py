"""The job kind `steer`: which direction, layer and strength changes answers and keeps them good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from jobs.composed_setup import CompositionParameters, composition_faults
from jobs.input_files import missing_files, missing_needs
from jobs.kind import Config, FinishedTrial, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.language_model_bytes import ANSWERING_BYTES, language_model_bytes
from jobs.steer_setup import NEEDS, SteerSetup
from sae.hooks import check_hook
from sae.model_shapes import known_shapes
from sae.stream_errors import UnknownHook
from steering.directions import method_names

__all__ = ["Steer", "SteerParameters"]

GIVEN, LATENT, COMPOSED = "given", "sae_latent", "composed"
SOURCES: Mapping[str, str] = {GIVEN: "vectors", LATENT: "sae", COMPOSED: "groups"}
"""Methods that make nothing of a contrast -> the key of the setup that they take."""


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

    pooling: Literal["last", "mean", "max", "first"] = "last"
    """Which of a text's tokens are read."""


class GivenParameters(VectorParameters):
    """A finished vector."""

    method: Literal["given"] = "given"
    input: int = Field(default=0, ge=0)
    """Which of the vectors that the sweep `needs`, the best being 0."""


class ComposedParameters(VectorParameters, CompositionParameters):
    """A group's vector, composed of those of style attributes."""

    method: Literal["composed"] = "composed"


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


_METRICS = (
    Metric(
        name="overall",
        direction="max",
        description="harmonic mean of effect, relevance and fluency; 0 if one of them is",
    ),
    Metric(name="effect", direction="max", description="how much of what was wanted answers have"),
    Metric(
        name="relevance",
        direction="max",
        description="cosine of answers and prompts over that of unsteered ones, at most 1",
    ),
    Metric(
        name="fluency",
        direction="max",
        description="unsteered perplexity and repeats over these, at most 1",
    ),
    Metric(
        name="perplexity",
        direction="min",
        description="of the answers' tokens, given the prompt, under the unsteered model",
    ),
    Metric(name="distinct_2", direction="max", description="different pairs of tokens in answers"),
    Metric(
        name="repeated_3grams",
        direction="min",
        description="share of token triples that came before in the same answer",
    ),
    Metric(name="best_strength", direction=None, description="best strength so far, by overall"),
)
_FINAL_METRICS = (
    *(
        Metric(name=f"test_{name}", direction="max", description=f"{name} on the other prompts")
        for name in ("overall", "effect", "relevance", "fluency")
    ),
    Metric(name="test_perplexity", direction="min", description="perplexity on the other prompts"),
    Metric(
        name="unsteered_effect", direction=None, description="effect of unsteered answers to them"
    ),
    Metric(
        name="prompted_overall",
        direction=None,
        description="overall of answers to them when asked for it in words",
    ),
    Metric(
        name="random_overall",
        direction=None,
        description="overall with a random direction of equal length",
    ),
)


class Steer(JobKind):
    """One trial is one direction at one place, at one strength or the best of some."""

    name = "steer"
    artefact_kind = "vectors"
    unit = "prompts"
    discriminator: ClassVar[str | None] = "method"
    takes_input_files = True
    leaves_reports = True
    Setup = SteerSetup
    metrics: ClassVar[Sequence[Metric]] = _METRICS
    final_metrics: ClassVar[Sequence[Metric]] = _FINAL_METRICS
    default_metric = "overall"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        found: dict[str | None, type[BaseModel]] = {
            name: _contrast_parameters(name) for name in method_names()
        }
        found |= {GIVEN: GivenParameters, LATENT: LatentParameters, COMPOSED: ComposedParameters}
        return found

    def implied_space(self, setup: SteerSetup) -> Mapping[str, Sequence[Any]]:
        implied: dict[str, Sequence[Any]] = {"layer": setup.layers} if setup.layers else {}
        if setup.vectors is not None:
            implied["method"] = (GIVEN,)
        if setup.groups is not None:
            implied["method"] = (COMPOSED,)
        if setup.sae is not None:
            implied |= {"method": (LATENT,), "latent": setup.latents}
        return implied

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        del searched
        return ()  # the objective is the same for all

    def check_setup(self, setup: SteerSetup) -> list[tuple[tuple[str | int, ...], str]]:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        shape = known_shapes(setup.model)
        for index, layer in enumerate(setup.layers):
            try:
                check_hook(f"{setup.site}.{layer}", shape)
            except UnknownHook as error:
                faults.append((("layers", index), str(error)))
        return faults

    def check_needs(
        self, setup: SteerSetup, kinds: Sequence[str]
    ) -> list[tuple[tuple[str | int, ...], str]]:
        wanted: dict[tuple[str | int, ...], str] = {}
        if setup.vectors == NEEDS:
            wanted["vectors",] = "vectors"
        if setup.sae == NEEDS:
            wanted["sae",] = "sae"
        if setup.groups is not None and setup.groups.embedding == NEEDS:
            wanted["groups", "embedding"] = "embedding"
        if setup.effect is not None and setup.effect.embedding == NEEDS:
            wanted["effect", "embedding"] = "embedding"
        return missing_needs(wanted, kinds)

    def check_here(self, setup: SteerSetup) -> list[tuple[tuple[str | int, ...], str]]:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        if setup.contrast is not None:
            faults += missing_files(setup.contrast.files, ("contrast", "files"))
        effect = setup.effect
        if effect is not None and effect.contrast is not None:
            faults += missing_files(effect.contrast.files, ("effect", "contrast", "files"))
        if isinstance(setup.prompts, str) and Path(setup.prompts).suffix:
            faults += missing_files(setup.prompts, ("prompts",))
        if setup.vectors not in (None, NEEDS):
            faults += missing_files(setup.vectors, ("vectors",))
        if setup.groups is not None:
            faults += setup.groups.faults_here()
        return faults

    def check(self, setup: SteerSetup, config: Config) -> list[str]:
        faults = []
        method = config.get("method")
        if method not in (None, *SOURCES) and setup.contrast is None:
            faults.append(f"method={method!r} makes a direction of texts; give contrast: ...")
        source = SOURCES.get(str(method))
        if source is not None and setup.contrast is not None:
            known = ", ".join(method_names())
            faults.append(f"method={method!r} makes nothing of a contrast; use one of {known}")
        elif source is not None and getattr(setup, source) is None:
            faults.append(f"method={method!r} needs {source}: ..., which is not there; give it")
        if setup.groups is not None:
            faults += composition_faults(setup.groups, config)
        if config.get("strength") == 0 and config.get("operation") != "set_latent":
            faults.append("strength=0 steers nowhere; the unsteered run is measured anyway")
        return faults

    def total_tokens(self, setup: SteerSetup, config: Config) -> int:
        """Prompts."""
        del config
        return int(setup.count)

    def footprint(self, setup: SteerSetup, config: Config) -> Footprint:
        del config
        return Footprint(
            trial_bytes=language_model_bytes(setup.model) + ANSWERING_BYTES,
            shared_bytes=0,
            shared_flop_per_token=0.0,
            trial_flop_per_token=0.0,
        )

    def runner(self, context: TrialContext) -> TrialRunner:
        from jobs.runners.steer import SteerRunner

        return SteerRunner(context)

    def write_report(
        self, setup: SteerSetup, trials: Sequence[FinishedTrial], folder: Path
    ) -> Sequence[Path]:
        del setup
        from jobs.steer_report import write_sweep_report

        return write_sweep_report(trials, folder)
