"""The job kind `steer`: which direction, layer and strength changes answers and keeps them good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from jobs.composed_setup import composition_faults
from jobs.input_files import missing_files, missing_needs
from jobs.kind import Config, FinishedTrial, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.language_model_bytes import ANSWERING_BYTES, language_model_bytes
from jobs.steer_parameters import implied_method, method_faults, parameters_by_method
from jobs.steer_setup import NEEDS, PROBE_REPORT, SteerSetup
from sae.hooks import check_hook
from sae.model_shapes import known_shapes
from sae.stream_errors import UnknownHook
from steering.errors import BadSteeringInput
from steering.prompt_banks import find_bank

__all__ = ["Steer"]

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
        return {name: model for name, model in parameters_by_method().items()}  # noqa: C416

    def implied_space(self, setup: SteerSetup) -> Mapping[str, Sequence[Any]]:
        method = implied_method(setup)
        return {
            **({"layer": setup.layers} if setup.layers else {}),
            **({"method": (method,)} if method is not None else {}),
            **({"latent": setup.latents} if setup.latents else {}),
        }

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
        faults += _bank_faults(setup, are_files=False)
        return faults

    def check_needs(
        self, setup: SteerSetup, kinds: Sequence[str]
    ) -> list[tuple[tuple[str | int, ...], str]]:
        wanted: dict[tuple[str | int, ...], str] = {
            (name,): name for name in ("vectors", "sae", "probe") if getattr(setup, name) == NEEDS
        }
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
        faults += _bank_faults(setup, are_files=True)
        if setup.vectors not in (None, NEEDS):
            faults += missing_files(setup.vectors, ("vectors",))
        if setup.probe not in (None, NEEDS):
            faults += missing_files(str(Path(setup.probe) / PROBE_REPORT), ("probe",))
        if setup.groups is not None:
            faults += setup.groups.faults_here()
        return faults

    def check(self, setup: SteerSetup, config: Config) -> list[str]:
        faults = method_faults(setup, config)
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


def _bank_faults(setup: SteerSetup, *, are_files: bool) -> list[tuple[tuple[str | int, ...], str]]:
    """Banks that are not there, cannot be read, or have too few prompts; built-in ones or files."""
    faults: list[tuple[tuple[str | int, ...], str]] = []
    banks: list[tuple[tuple[str | int, ...], str | Sequence[str], int]] = [
        (("prompts",), setup.prompts, setup.count),
        (("drawing", "prompts"), setup.drawing.prompts, 1),
    ]
    for at, bank, count in banks:
        if not isinstance(bank, str) or bool(Path(bank).suffix) != are_files:
            continue
        try:
            find_bank(bank).first(count)
        except BadSteeringInput as error:
            faults.append((at, str(error)))
    return faults
