"""The job kind `probe`: which layer, token and SAE carries a concept, by probes with controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

from jobs.input_files import missing_files, missing_needs
from jobs.kind import Config, FinishedTrial, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.language_model_bytes import language_model_bytes
from jobs.one_or_many import ONE_OR_MANY
from jobs.splits import SplitConfig
from sae.hooks import check_hook
from sae.model_shapes import known_shapes
from sae.sae_spec import SaeSpec
from sae.stream_errors import UnknownHook
from sae.stream_spec import ModelSpec
from steering.probes.data import LabelledSpec
from steering.probes.features.spec import FeaturePooling
from steering.probes.imbalance import ImbalanceMode
from steering.probes.latents.questions import YesNoSpec
from steering.probes.methods import METHODS, ProbeMethod
from steering.probes.noise.label_flips import NoiseSweepSpec
from steering.probes.noise.token_evaluation import NoiseModel

SAES = "saes"
"""The source that stands for all SAEs together, the best one chosen on validation."""
NEEDS: Final = "needs"
"""Stands for the SAEs of the sweeps that a sweep needs."""
TRIAL_BYTES = 1024 * 2**20
"""Beside the language model: libraries, features, SAEs. Measured with SmolLM2 on a CPU and two
hooks of 200 texts: 0.75 GiB at the highest, while the features are read."""
MAX_TRUSTED_MAJORITY = 0.8
"""Above this share of the majority class accuracy says nothing."""


class ReadingConfig(BaseModel):
    """How much of each text is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_tokens: int = Field(default=256, ge=2)
    """Longer texts are cut, BOS counted."""
    kept_tokens: int | None = Field(default=64, ge=1)
    """Of probes on tokens: most tokens of a text, spread evenly; null for all."""
    batch_tokens: int = Field(default=4096, ge=2)
    """Most tokens of a forward pass."""


class LatentsConfig(BaseModel):
    """What is said of single latents of the best SAE."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    top: int = Field(default=8, ge=0)
    """So many latents, the best by AUROC; 0 for none."""
    contexts: int = Field(default=5, ge=1)
    """Texts shown of each, where it is strongest."""
    causal: bool = True
    """Whether each is set to zero in the model, and the model's own words are watched."""
    causal_texts: int = Field(default=16, ge=2)
    """Texts for that."""
    question: YesNoSpec | None = None
    """What the model itself is asked about each text, such as {question: "Is there code in it?"}
    (with quotes, for YAML); then the causal check also says what a latent does to its answer."""


class ProbeSetup(BaseModel):
    """The keys of a sweep file that all trials share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: ModelSpec
    """The language model that is read."""
    data: LabelledSpec
    """Labelled text, such as {files: reviews.jsonl, text: body, label: toxic, item: author}."""
    hooks: Annotated[tuple[str, ...], ONE_OR_MANY] = ()
    """Where activations are read: each is a source that trials may choose."""
    saes: Literal["needs"] | Mapping[str, SaeSpec] = {}
    """SAEs whose latents are read as well: those that the sweep `needs`, or by name, such as
    {mine: {folder: sae}, scope: {release: gemma-scope-2b-pt-res-canonical, id: ...}}."""
    split: SplitConfig = SplitConfig()
    """How texts are dealt out, by whole items."""
    seeds: int = Field(default=3, ge=1)
    """Splits with different seeds that each trial is fitted on; metrics are their means."""
    read: ReadingConfig = ReadingConfig()
    """How much of each text is read."""
    controls: bool = True
    """Shuffled labels, a control task, and baselines that see no activations."""
    label_noise: NoiseSweepSpec | None = None
    """Each probe again on labels made wrong on purpose, tested on those that are given; such as
    {rates: [0.1, 0.2, 0.3], flips: [symmetric, positive_to_negative], seeds: 3}. Null for none: it
    is rates x flips x seeds more fits a trial."""
    token_noise: NoiseModel | None = None
    """How often token labels are wrong, such as {kind: class_conditional, wrong_among_positive:
    0.9}: then probes on tokens are judged by token too. Null: only where spans label the tokens."""
    latents: LatentsConfig = LatentsConfig()
    """What is said of single latents."""

    @model_validator(mode="after")
    def _sources_differ(self) -> ProbeSetup:
        if not self.hooks and not self.saes:
            raise ValueError("nothing is read: give hooks, saes, or both")
        if len(set(self.hooks)) != len(self.hooks):
            raise ValueError(f"hooks={list(self.hooks)} names one twice; drop it")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """What trials may read."""
        return (*self.hooks, *((SAES,) if self.saes else ()))


class ProbeParameters(BaseModel):
    """What trials of every method may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    source: str = ""
    """One of `hooks`, or `saes`: all SAEs, the best one chosen on validation."""
    pooling: FeaturePooling = "mean"
    """A text's row: its last or first token, the mean or max of its tokens. tokens: a row a token,
    labelled by spans; without spans by its text, which is judged by its largest token score.
    attention: all tokens of a text together; for the multiple_instance methods, whose default it
    is, and for no other."""
    imbalance: ImbalanceMode = "none"
    """What is done about rare positives."""
    seed: int = Field(default=0, ge=0)
    """Of what is drawn while fitting; the splits have their own."""
    negatives_per_positive: float | None = Field(default=None, gt=0)
    """Training rows without any label for each with one, drawn at random; null for all. Thresholds
    are tuned on all rows of validation."""

    @model_validator(mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        lists = {n for n, f in cls.model_fields.items() if get_origin(f.annotation) is tuple}
        return {
            name: [value] if name in lists and isinstance(value, int | float) else value
            for name, value in values.items()
        }


@cache
def _parameters_of(method: str) -> type[BaseModel]:
    """A method's own parameters beside the common ones."""
    kind = METHODS[method]
    only: Any = Literal[method]
    own: dict[str, Any] = {"method": (only, method)}
    if kind.reads_bags:
        pooling = ProbeParameters.model_fields["pooling"]
        own["pooling"] = (FeaturePooling, Field("attention", description=pooling.description))
    model: type[BaseModel] = create_model(
        f"{kind.__name__}Parameters",
        __base__=(ProbeParameters, kind),
        __doc__=kind.__doc__,
        **own,
    )
    return model


class Probe(JobKind):
    """One trial is one way of probing: a source, a pooling, a method, over several splits."""

    name = "probe"
    artefact_kind = "probe"
    unit = "fits"
    discriminator: ClassVar[str | None] = "method"
    takes_input_files = True
    leaves_reports = True
    Setup = ProbeSetup
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="auroc",
            direction="max",
            description="area under ROC, validation, mean over labels and seeds",
        ),
        Metric(
            name="auprc", direction="max", description="area under precision-recall, validation"
        ),
        Metric(
            name="macro_f1",
            direction="max",
            description="F1 at thresholds tuned on validation, mean over labels",
        ),
        Metric(
            name="balanced_accuracy",
            direction="max",
            description="mean of the recalls of both classes, validation",
        ),
        Metric(
            name="accuracy",
            direction="max",
            description="share of right answers, validation",
        ),
    )
    final_metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name="test_auroc",
            direction="max",
            description="auroc on rows that nothing was chosen on",
        ),
        Metric(
            name="test_auprc",
            direction="max",
            description="auprc on such rows",
        ),
        Metric(
            name="test_macro_f1",
            direction="max",
            description="macro F1 on such rows, thresholds from validation",
        ),
        Metric(
            name="shuffled_auroc",
            direction=None,
            description="test AUROC of training on shuffled labels: 0.5 unless something leaks",
        ),
        Metric(
            name="selectivity",
            direction="max",
            description="test AUROC less that of a control task with random labels",
        ),
    )
    default_metric = "auroc"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        return {name: _parameters_of(name) for name in METHODS}

    def implied_space(self, setup: ProbeSetup) -> Mapping[str, Sequence[Any]]:
        return {"source": setup.sources} if len(setup.sources) > 1 else {}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        del searched
        return ()  # all are measured on the same rows

    def check_setup(self, setup: ProbeSetup) -> list[tuple[tuple[str | int, ...], str]]:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        shape = known_shapes(setup.model)
        for index, hook in enumerate(setup.hooks):
            try:
                check_hook(hook, shape)
            except UnknownHook as error:
                faults.append((("hooks", index), str(error)))
        return faults

    def check_needs(
        self, setup: ProbeSetup, kinds: Sequence[str]
    ) -> list[tuple[tuple[str | int, ...], str]]:
        return missing_needs({("saes",): "sae"} if setup.saes == NEEDS else {}, kinds)

    def check_here(self, setup: ProbeSetup) -> list[tuple[tuple[str | int, ...], str]]:
        return missing_files(setup.data.files)

    def check(self, setup: ProbeSetup, config: Config) -> list[str]:
        faults = []
        source = config.get("source", "")
        if source and source not in setup.sources:
            faults.append(f"source={source!r} is none of {', '.join(setup.sources)}")
        method = METHODS.get(str(config.get("method")))
        return faults if method is None else [*faults, *_method_faults(method, config)]

    def total_tokens(self, setup: ProbeSetup, config: Config) -> int:
        """Splits that are fitted."""
        del config
        return int(setup.seeds)

    def footprint(self, setup: ProbeSetup, config: Config) -> Footprint:
        del config
        return Footprint(
            trial_bytes=TRIAL_BYTES + language_model_bytes(setup.model),
            shared_bytes=0,  # each trial's process loads the model for itself
        )

    def runner(self, context: TrialContext) -> TrialRunner:
        from jobs.runners.probe import ProbeRunner

        return ProbeRunner(context)

    def write_report(
        self, setup: ProbeSetup, trials: Sequence[FinishedTrial], folder: Path
    ) -> Sequence[Path]:
        del setup
        from steering.probes.report import write_sweep_report

        return write_sweep_report(trials, folder)


def _method_faults(method: type[ProbeMethod], config: Config) -> list[str]:
    """What a method cannot do with the other parameters."""
    faults = []
    pooling = config.get("pooling", "attention" if method.reads_bags else "mean")
    if method.reads_bags and pooling != "attention":
        faults.append(
            f"pooling={pooling!r}: method={method.name} reads all tokens of a text, not one row a "
            "text or token; leave pooling out for it, or give it its own: {fixed: attention, "
            f"when: {{method: {method.name}}}}}"
        )
    if not method.reads_bags and pooling == "attention":
        bags = " or ".join(sorted(name for name, one in METHODS.items() if one.reads_bags))
        faults.append(
            f"pooling={pooling!r}: method={method.name} reads single rows, and this keeps all "
            f"tokens of a text together; take last, mean, max, first or tokens, or method {bags}"
        )
    imbalance = config.get("imbalance", "none")
    if not method.weighs_rows and imbalance != "none":
        faults.append(
            f"imbalance={imbalance!r}: method={method.name} weighs its rows itself, by what is "
            "known of them; take none, or thin negatives with negatives_per_positive"
        )
    return faults
