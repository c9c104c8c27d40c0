"""The job kind `style_scorer`: a regressor from a text encoder's features to style attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.input_files import missing_files
from jobs.kind import Config, FinishedTrial, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.one_or_many import ONE_OR_MANY
from jobs.splits import SplitConfig
from steering.styles.encoders import EncoderSpec
from steering.styles.scorers.targets import TargetsSpec

FEATURE_BYTES = 512 * 2**20
"""Planned for a table's features, once a device: what is exact is known when they are there."""
TRIAL_BYTES = 256 * 2**20


class StyleScorerSetup(BaseModel):
    """The keys of a sweep file that all trials share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    data: TargetsSpec
    """The table, such as {files: scored.jsonl, text: answer, vector: scores, item: question}."""
    encoder: EncoderSpec
    """What turns a text into numbers: {hf: microsoft/deberta-v3-base}, {builtin: minilm}, ..."""
    catalogue: str | None = None
    """File of the attribute catalogue that the vectors' places stand for; they are checked."""
    steps: int = Field(default=1000, gt=0)
    """Length of a trial. Trials on few rows take as many, so that a learning curve over
    train_rows shows the rows and not the steps."""
    split: SplitConfig = SplitConfig()
    """How rows are dealt out, by whole items."""

    @model_validator(mode="after")
    def _encoder_reads_texts(self) -> StyleScorerSetup:
        if self.encoder.features:
            raise ValueError("encoder features: the vectors are what is learned; name a text model")
        return self


class _Trained(BaseModel):
    """What trials of every loss may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    hidden: Annotated[tuple[int, ...], ONE_OR_MANY] = (256,)
    """Widths of the hidden layers, ReLU after each; [] is a linear map."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden activations set to zero in training."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay."""
    batch: int = Field(default=64, gt=0)
    """Rows of a step, drawn with replacement."""
    train_rows: int | None = Field(default=None, ge=2)
    """Train on so many rows of the training part alone: searched, it gives a learning curve."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights and of what is drawn, train_rows among it."""


class MseParameters(_Trained):
    """Squared error, in deviations of each attribute."""

    loss: Literal["mse"] = "mse"


class BceParameters(_Trained):
    """Cross-entropy of probabilities; scores must lie within 0 and 1."""

    loss: Literal["bce"] = "bce"


class HuberParameters(_Trained):
    """Squared error for small errors, absolute for large ones (Huber 1964)."""

    loss: Literal["huber"] = "huber"
    delta: float = Field(default=1.0, gt=0)
    """Where it turns from squared to absolute, in deviations of the attribute."""


class StyleScorer(JobKind):
    """One trial is one regressor over features that all trials share."""

    name = "style_scorer"
    artefact_kind = "style_scorer"
    unit = "steps"
    discriminator: ClassVar[str | None] = "loss"
    leaves_reports: ClassVar[bool] = True
    Setup = StyleScorerSetup
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="r2",
            direction="max",
            description="R2 of validation rows, mean over attributes; the same for every loss",
        ),
        Metric(
            name="loss",
            direction="min",
            description="mean training loss since the last report",
            not_comparable_while_searching=("loss", "delta", "batch", "train_rows"),
        ),
    )
    final_metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="test_r2",
            direction="max",
            description="as r2, of rows that nothing was chosen on",
        ),
        Metric(
            name="test_auroc",
            direction="max",
            description="mean over the attributes whose scores are a yes or no, test rows",
        ),
        Metric(name="rows", direction=None, description="rows that were trained on"),
    )
    default_metric = "r2"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        models: Sequence[type[BaseModel]] = (MseParameters, BceParameters, HuberParameters)
        return {model.model_fields["loss"].default: model for model in models}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        # Few rows never reach what many do: compared with those, all of them would be stopped.
        return ("train_rows",) if "train_rows" in searched else ()

    def check(self, setup: Any, config: Config) -> list[str]:
        del setup, config
        return []

    def check_here(self, setup: Any) -> list[tuple[tuple[str | int, ...], str]]:
        faults = missing_files(setup.data.files)
        if setup.catalogue is not None and not Path(setup.catalogue).is_file():
            faults.append((("catalogue",), f"there is no file {setup.catalogue!r}"))
        return faults

    def total_tokens(self, setup: Any, config: Config) -> int:
        """Steps."""
        del config
        return int(setup.steps)

    def footprint(self, setup: Any, config: Config) -> Footprint:
        del setup, config
        return Footprint(
            trial_bytes=TRIAL_BYTES,
            shared_bytes=FEATURE_BYTES,
        )

    def write_report(
        self, setup: Any, trials: Sequence[FinishedTrial], folder: Path
    ) -> Sequence[Path]:
        """The learning curve, where trials differ in how many rows they were given."""
        del setup
        from steering.styles.scorers.learning_curve import CurvePoint, write_learning_curve

        points = [
            CurvePoint(
                int(trial.metrics["rows"]),
                str(trial.config.get("loss", "mse")),
                trial.metrics["test_r2"],
            )
            for trial in trials
            if "test_r2" in trial.metrics and "rows" in trial.metrics
        ]
        return write_learning_curve(points, folder)

    def runner(self, context: TrialContext) -> TrialRunner:
        from jobs.runners.style_scorer import StyleScorerRunner

        return StyleScorerRunner(context)
