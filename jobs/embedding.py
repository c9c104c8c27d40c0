"""The job kind `embedding`: tune a style embedding by an objective that can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.kind import Config, FinishedTrial, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.one_or_many import ONE_OR_MANY
from jobs.splits import SplitConfig
from steering.styles.encoder_memory import encoder_bytes
from steering.styles.encoders import EncoderSpec
from steering.styles.row_count import planned_bytes
from steering.styles.rows import RowsSpec

Aggregator = Literal["mean", "median", "trimmed", "medoid"]
Distance = Literal["euclidean", "squared", "cosine"]
LoraTargets = Literal["query_value", "attention", "all_linear"] | tuple[str, ...]

TRIAL_BYTES = 64 * 2**20
"""Of a head with its optimizer."""
FOR_WHOLE = ("encoder_lr",)
FOR_LORA = ("encoder_lr", "lora_r", "lora_alpha", "lora_dropout", "lora_targets")


class EmbeddingSetup(BaseModel):
    """The keys of a sweep file that all trials share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    data: RowsSpec
    """The table, such as {files: answers.jsonl, text: answer, group: user, item: question}."""
    encoder: EncoderSpec
    """What turns a row into numbers: {features: true}, {hf: microsoft/deberta-v3-base}, ..."""
    epochs: int = Field(default=30, gt=0)
    """Length of a trial: how often every row was an anchor; the unit of rungs and reports."""
    split: SplitConfig = SplitConfig()
    """How rows are dealt out, by whole items."""
    parents: Mapping[str, str] = {}
    """A group's parent, such as {physicist: natural scientist}, for hierarchical accuracy."""
    catalogue: str | None = None
    """File of the attribute catalogue that the vectors' places stand for; they are checked."""

    @model_validator(mode="after")
    def _encoder_finds_its_column(self) -> EmbeddingSetup:
        if self.encoder.features and self.data.vector is None and not self.data.is_array:
            raise ValueError("encoder features: reads vectors; name their column: data.vector")
        if not self.encoder.features and not self.data.has_text:
            raise ValueError("this encoder reads texts; name their column: data.text")
        return self


class _Trained(BaseModel):
    """What trials of every loss may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    hidden: Annotated[tuple[int, ...], ONE_OR_MANY] = (256,)
    """Widths of the hidden layers, ReLU after each; 256 is two fully connected layers."""
    d_out: int = Field(default=64, gt=1)
    """Width of the embedding."""
    normalize: bool = False
    """Whether embeddings are scaled to length one."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden activations set to zero in training."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    batch: int = Field(default=256, gt=1)
    """Triplets, or samples of a batch for mining."""
    centroid: Aggregator = "mean"
    """How a group's place is found from its rows: mean, median, trimmed or medoid."""
    encoder_lr: float = Field(default=5e-5, gt=0)
    """Learning rate of a tuned encoder. Whole: 1e-5 to 5e-5 (Devlin et al. 2019, appendix A.3);
    LoRA: 1e-4 to 1e-3 (Hu et al. 2021, appendix D)."""
    lora_r: int = Field(default=8, gt=0)
    """Rank of LoRA's additions."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """Over lora_r it is their scale: a larger one acts like a larger learning rate."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the additions' inputs set to zero in training."""
    lora_targets: LoraTargets = "attention"
    """Where they go: query_value, attention, all_linear, or ends of module names."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights and of what is drawn: search it to see the spread."""


class _OverTriplets(_Trained):
    pool: Literal["mixed", "disjoint"] = "mixed"
    """Whether a sample that serves as anchor may also be a positive or negative."""
    distance: Distance = "euclidean"
    """Of the loss; Euclidean ones in units of their mean in the batch."""


class _Mined(_Trained):
    groups_in_batch: int = Field(default=8, ge=2)
    """Groups in a batch, with as many samples each."""


class TripletParameters(_OverTriplets):
    """Triplet margin loss (Schroff et al. 2015)."""

    loss: Literal["triplet"] = "triplet"
    margin: float = Field(default=0.5, gt=0)
    """Cosine: 0.02 to 0.8 is usual; Euclidean: in units of the mean pair distance, 0.1 to 2."""


class SoftMarginParameters(_OverTriplets):
    """softplus(d(a, p) - d(a, n)): no margin (Hermans et al. 2017)."""

    loss: Literal["soft_margin"] = "soft_margin"


class BatchHardParameters(_Mined):
    """Farthest positive, nearest negative of a batch (Hermans et al. 2017)."""

    loss: Literal["batch_hard"] = "batch_hard"
    distance: Distance = "euclidean"
    """Of the loss; Euclidean ones in units of their mean in the batch."""
    margin: float = Field(default=0.5, gt=0)
    """As for triplet."""


class SemiHardParameters(_Mined):
    """The nearest negative that is farther than the positive (Schroff et al. 2015)."""

    loss: Literal["semi_hard"] = "semi_hard"
    distance: Distance = "euclidean"
    """Of the loss; Euclidean ones in units of their mean in the batch."""
    margin: float = Field(default=0.5, gt=0)
    """As for triplet."""


class SupconParameters(_Mined):
    """Supervised contrastive, over cosines (Khosla et al. 2020)."""

    loss: Literal["supcon"] = "supcon"
    temperature: float = Field(default=0.1, gt=0)
    """Of the softmax."""


class MultiSimilarityParameters(_Mined):
    """Multi-similarity, over cosines (Wang et al. 2019)."""

    loss: Literal["multi_similarity"] = "multi_similarity"


_LOSS_DEPENDS_ON = ("loss", "distance", "margin", "temperature", "pool", "batch", "groups_in_batch")


class Embedding(JobKind):
    """One trial is one head over features that all trials share, or over an encoder of its own."""

    name = "embedding"
    artefact_kind = "embedding"
    unit = "epochs"
    discriminator: ClassVar[str | None] = "loss"
    Setup = EmbeddingSetup
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="macro_accuracy",
            direction="max",
            description="validation rows nearest to their own group's centroid, mean over groups",
        ),
        Metric(
            name="triplet_accuracy",
            direction="max",
            description="P(d(anchor, positive) < d(anchor, negative)) on validation rows",
        ),
        Metric(
            name="silhouette", direction="max", description="mean silhouette of validation rows"
        ),
        Metric(
            name="separation",
            direction=None,
            description="mean distance between groups over that within one, validation rows",
        ),
        Metric(
            name="loss",
            direction="min",
            description="mean training loss since the last report",
            not_comparable_while_searching=_LOSS_DEPENDS_ON,
        ),
    )
    final_metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="test_macro_accuracy",
            direction="max",
            description="as macro_accuracy, of rows that nothing was chosen on",
        ),
        Metric(
            name="test_parent_accuracy",
            direction="max",
            description="test rows whose nearest group has the right parent",
        ),
    )
    default_metric = "macro_accuracy"
    leaves_reports: ClassVar[bool] = True

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        models: Sequence[type[BaseModel]] = (
            TripletParameters,
            SoftMarginParameters,
            BatchHardParameters,
            SemiHardParameters,
            SupconParameters,
            MultiSimilarityParameters,
        )
        return {model.model_fields["loss"].default: model for model in models}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        del searched
        return ()  # the objective is the same for all

    def check(self, setup: Any, config: Config) -> list[str]:
        faults = _tuning_faults(setup.encoder.tune, config)
        if config.get("distance") == "cosine" and config.get("margin", 0) >= 2:
            faults.append(
                f"margin={config['margin']} with cosine distance, which is at most 2, pulls "
                "everything into one point; use 0.02 to 0.8"
            )
        if config.get("batch", 256) < config.get("groups_in_batch", 0) * 2:
            faults.append(
                f"batch={config.get('batch', 256)} is less than two samples for each of "
                f"groups_in_batch={config['groups_in_batch']}; there would be no positives"
            )
        return faults

    def check_here(self, setup: Any) -> list[tuple[tuple[str | int, ...], str]]:
        files = setup.data.files
        names = [files] if isinstance(files, str) else list(files or ())
        missing = [name for name in names if not list(_matches(name))]
        faults: list[tuple[tuple[str | int, ...], str]] = [
            (("data", "files"), f"no file matches {name!r}; name one that is there")
            for name in missing
        ]
        if setup.catalogue is not None and not Path(setup.catalogue).is_file():
            faults.append((("catalogue",), f"there is no file {setup.catalogue!r}"))
        return faults

    def total_tokens(self, setup: Any, config: Config) -> int:
        """Epochs."""
        del config
        return int(setup.epochs)

    def footprint(self, setup: Any, config: Config) -> Footprint:
        model = self.parameters()[config.get("loss", "triplet")]
        values = model.model_validate(config).model_dump()
        needs = encoder_bytes(setup.encoder, lora_r=values["lora_r"])
        return Footprint(
            trial_bytes=TRIAL_BYTES + needs.trial_bytes,
            shared_bytes=planned_bytes(setup.data, needs.width) + needs.once_bytes,
        )

    def write_report(
        self, setup: Any, trials: Sequence[FinishedTrial], folder: Path
    ) -> Sequence[Path]:
        from steering.styles.sweep_report import TrialLine, write_sweep_report

        del setup
        lines = [TrialLine(one.trial, one.config, one.metrics) for one in trials]
        return write_sweep_report(lines, self.default_metric, folder)

    def runner(self, context: TrialContext) -> TrialRunner:
        from jobs.runners.embedding import EmbeddingRunner

        return EmbeddingRunner(context)


def _tuning_faults(tune: str, config: Config) -> list[str]:
    """Parameters of a tuning that the encoder does not get."""
    serves = {"frozen": (), "whole": FOR_WHOLE, "lora": FOR_LORA}[tune]
    idle = [name for name in FOR_LORA if name in config and name not in serves]
    if not idle:
        return []
    way_out = "lora" if any(name.startswith("lora_") for name in idle) else "whole"
    return [
        f"{', '.join(idle)}: without effect, as the encoder is tune: {tune}; set encoder: {{tune: "
        f"{way_out}}}, or leave it out"
    ]


def _matches(pattern: str) -> list[str]:
    import glob

    return glob.glob(pattern, recursive=True)
