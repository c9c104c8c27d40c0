"""The job kind `steering_table`: does steering work better than prompting, in eight conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from jobs.composed_setup import composition_faults
from jobs.input_files import missing_files
from jobs.kind import Config, FinishedTrial, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.language_model_bytes import ANSWERING_BYTES, language_model_bytes
from jobs.steering_table_setup import SteeringTableParameters, SteeringTableSetup
from sae.hooks import check_hook
from sae.model_shapes import known_shapes
from sae.stream_errors import UnknownHook
from steering.errors import BadSteeringInput


class SteeringTable(JobKind):
    """One trial is one way of steering, held against prompting on the same prompts and seeds."""

    name = "steering_table"
    artefact_kind = "steering_table"
    unit = "prompts x seeds"
    takes_input_files = True
    leaves_reports = True
    Setup = SteeringTableSetup
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="m2_net",
            direction="max",
            description="steering alone: gains less losses of the right group, on the prompts that "
            "the strength is chosen on",
        ),
        Metric(name="m2_gain", direction="max", description="the gains alone"),
        Metric(name="m1_rate", direction=None, description="answers that changed their group"),
        Metric(
            name="m3_towards",
            direction="min",
            description="1 - cos between an answer's shift and the way to its target group",
        ),
        Metric(
            name="m3_hit",
            direction="max",
            description="shifts whose nearest direction is that of their target group",
        ),
        Metric(
            name="perplexity_ratio",
            direction="min",
            description="perplexity of steered answers over that of unsteered ones",
        ),
        Metric(
            name="repeated_3grams",
            direction="min",
            description="share of token triples that came before in the same answer",
        ),
        Metric(name="strength", direction=None, description="the strength all this is at"),
    )
    final_metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="table_m2_net_steer",
            direction="max",
            description="net M2 of steering alone (C5), on prompts that nothing was chosen on",
        ),
        Metric(
            name="table_m2_net_prompt",
            direction="max",
            description="the same of group and attributes in the prompt (C4)",
        ),
        Metric(name="table_m2_net_both", direction="max", description="the same of all of it (C8)"),
        Metric(
            name="table_m1_floor",
            direction=None,
            description="answers that change their group when one only asks again",
        ),
        Metric(
            name="topic_leak",
            direction=None,
            description="how many times chance unsteered answers are of their prompt's group; 1 "
            "for a bank without topics",
        ),
    )
    default_metric = "m2_net"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        return {None: SteeringTableParameters}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        del searched
        return ()  # all answer the same prompts

    def check_needs(
        self, setup: SteeringTableSetup, kinds: Sequence[str]
    ) -> list[tuple[tuple[str | int, ...], str]]:
        named, needed = setup.embedding, kinds.count("embedding")
        if (named is not None) + needed == 1:
            return []
        return [
            (
                ("embedding",) if named is not None else ("needs",),
                f"a table needs exactly one style embedding; got embedding={named!r} and {needed} "
                "from the sweeps it needs; name a folder, or write needs: "
                "[{sweep: NAME, select: {kind: embedding, best: macro_accuracy}}]",
            )
        ]

    def check_here(self, setup: SteeringTableSetup) -> list[tuple[tuple[str | int, ...], str]]:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        if setup.data is not None:
            faults += missing_files(setup.data.files)
        if setup.embedding is not None and not Path(setup.embedding).is_dir():
            faults.append((("embedding",), f"there is no folder {setup.embedding!r}"))
        try:
            setup.read_banks(setup.groups)
        except BadSteeringInput as error:
            faults.append((("banks",), str(error)))
        return faults + setup.faults_of_files()

    def check(self, setup: SteeringTableSetup, config: Config) -> list[str]:
        parameters = SteeringTableParameters.model_validate(config)
        faults = composition_faults(setup, config)
        try:
            check_hook(parameters.hook, known_shapes(setup.model))
        except UnknownHook as error:
            faults.append(str(error))
        return faults

    def total_tokens(self, setup: SteeringTableSetup, config: Config) -> int:
        """Pairs of a prompt and a seed."""
        del config
        return setup.num_units

    def footprint(self, setup: SteeringTableSetup, config: Config) -> Footprint:
        del config
        return Footprint(
            trial_bytes=language_model_bytes(setup.model) + ANSWERING_BYTES,
            shared_bytes=0,
        )

    def runner(self, context: TrialContext) -> TrialRunner:
        from jobs.runners.steering_table import SteeringTableRunner

        return SteeringTableRunner(context)

    def write_report(
        self, setup: Any, trials: Sequence[FinishedTrial], folder: Path
    ) -> Sequence[Path]:
        del setup
        from steering.table.sweep_report import write_sweep_report

        return write_sweep_report(
            [(trial.trial, trial.config, trial.metrics, trial.folder) for trial in trials], folder
        )
