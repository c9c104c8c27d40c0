"""The job kind `sae_train`: train a sparse autoencoder on activations shared with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs._sae_footprint import footprint
from jobs.input_files import missing_files
from jobs.kind import Config, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.one_or_many import ONE_OR_MANY
from jobs.splits import SplitConfig
from jobs.units import Bytes, Tokens, format_tokens
from sae.architectures import ArchitectureConfig, parse_architecture
from sae.hooks import UnknownHook, check_hook
from sae.local_files import local_model
from sae.model_shapes import known_shapes
from sae.sources import open_source
from sae.stream_errors import BadData, BadModel
from sae.stream_spec import CacheSpec, DataSpec, ModelSpec, StreamSpec
from steering.probes.data import LabelledSpec


class SaeProbeConfig(BaseModel):
    """How useful an SAE's latents are to a k-sparse probe, beside how well it reconstructs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    data: LabelledSpec
    """Labelled text, such as {files: reviews.jsonl, text: body, label: toxic}."""
    k: int = Field(default=16, ge=1, le=512)
    """Latents that a probe may use."""
    pooling: Literal["last", "mean", "max"] = "mean"
    """Over a text's tokens."""
    max_tokens: int = Field(default=128, ge=2)
    """Longer texts are cut, BOS counted."""
    split: SplitConfig = SplitConfig(shares=(0.7, 0.05, 0.25))
    """How texts are dealt out, by whole items; what is held out to choose C is of train."""


class EvaluationConfig(BaseModel):
    """How much of the full evaluation at a trial's end is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ce_tokens: Tokens = 2048
    """Held-out tokens over which the loss recovered in the model is measured."""
    probe: SaeProbeConfig | None = None
    """Labelled text that each finished SAE is probed with: the final metric `probe_auroc`."""


class CacheConfig(CacheSpec):
    """The cache of a sweep file, its size written as people do."""

    bytes: Bytes = Field(gt=0)
    """Most that the folder may hold, such as 50GB; what was not used for longest makes room."""


class SaeTrainSetup(BaseModel):
    """The keys of a sweep file that say what is trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: ModelSpec
    """The language model, such as {name: openai-community/gpt2}."""
    data: DataSpec
    """The text, such as {dataset: Skylion007/openwebtext, context: 128}."""
    hooks: Annotated[tuple[str, ...], ONE_OR_MANY] = Field(min_length=1)
    """Where activations are taken: module paths, or aliases such as blocks.8.hook_resid_post."""
    tokens: Tokens
    """Length of each trial's training, such as 200M; rounded down to whole batches."""
    batch_tokens: Tokens = 2048
    """Activations in one step of one SAE."""
    held_out_tokens: Tokens = 4096
    """Activations kept aside for evaluation."""
    buffer_tokens: Tokens | None = None
    """Activations shuffled together; not given: 16 batches."""
    lm_batch_contexts: int = Field(default=16, gt=0)
    """Contexts in one forward pass of the language model."""
    stream_seed: int = Field(default=0, ge=0)
    """Seed of the order of the text: the same for every trial of the sweep."""
    cache: CacheConfig | None = None
    """Keep activations on the local disk for whoever trains on the same tokens again, such as
    {bytes: 50GB, dtype: bfloat16}."""
    overlap: bool = True
    """Compute the next activations while SAEs train on these; on CUDA alone, and as long as there
    is memory for a second shuffle block."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured at the end of a trial."""

    @property
    def num_steps(self) -> int:
        """Whole batches in `tokens`."""
        return self.tokens // self.batch_tokens


_LOSS_DEPENDS_ON = (
    "architecture",
    "hook",
    "k",
    "normalize_activations",
    "aux_loss_coefficient",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "l0_coefficient",
    "l0_warm_up_steps",
    "target_l0",
    "pre_act_loss_coefficient",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale",
    "matryoshka_widths",
    "use_matryoshka_aux_loss",
)


def _metric(name: str, direction: Any, description: str, *not_comparable: str) -> Metric:
    return Metric(
        name=name,
        direction=direction,
        description=description,
        not_comparable_while_searching=not_comparable,
    )


class SaeTrain(JobKind):
    """One trial is one SAE, trained beside others on one stream of activations."""

    name = "sae_train"
    artefact_kind = "sae"
    discriminator: ClassVar[str | None] = "architecture"
    Setup = SaeTrainSetup
    how_to_run: ClassVar[Sequence[tuple[str, ...]]] = (
        ("cache", "bytes"),
        ("cache", "folder"),
        ("overlap",),
    )
    metrics: ClassVar[Sequence[Metric]] = (
        _metric("fvu", "min", "fraction of held-out variance not explained, 1 - R^2"),
        _metric("explained_variance", "max", "fraction of held-out variance explained"),
        _metric("l0", None, "latents that fire per held-out token, as exported"),
        _metric("dead_fraction", None, "latents that did not fire in the dead-latent window"),
        _metric("silent_fraction", None, "latents that never fire on the held-out tokens"),
        _metric("mse", "min", "held-out squared error, summed over d_in", "hook"),
        _metric("cosine", "max", "mean cosine of activation and reconstruction, held out"),
        _metric("norm_ratio", None, "mean norm of the reconstruction over the activation's"),
        _metric("loss", "min", "mean training loss since the last report", *_LOSS_DEPENDS_ON),
        _metric("loss_max", None, "largest training loss since the last report"),
    )
    final_metrics: ClassVar[Sequence[Metric]] = (
        _metric("ce_recovered", "max", "share of the loss recovered, against zero ablation"),
        _metric("ce_recovered_mean", "max", "share of the loss recovered, against mean ablation"),
        _metric("ce_clean", None, "the model's cross-entropy, untouched, nats"),
        _metric("ce_sae", "min", "cross-entropy with the reconstruction in place, nats"),
        _metric("ce_zero", None, "cross-entropy with zeros in place, nats"),
        _metric("ce_mean", None, "cross-entropy with the mean activation in place, nats"),
        _metric("kl_sae", "min", "KL of the clean predictions from the reconstructed, nats"),
        _metric("kl_zero", None, "KL of the clean predictions from the zeroed, nats"),
        _metric("probe_auroc", "max", "test AUROC of k-sparse probes, with evaluation.probe"),
    )
    """Measured once, when a trial has finished: nothing can be stopped early by them."""
    default_metric = "fvu"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        return dict(sorted(ArchitectureConfig.by_architecture.items()))

    def implied_space(self, setup: SaeTrainSetup) -> Mapping[str, Sequence[Any]]:
        return {"hook": setup.hooks} if len(setup.hooks) > 1 else {}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        """`hook`, and `k` where it fixes every SAE's L0, else bands of the measured L0."""
        priced = {
            cls.sparsity_knob
            for cls in ArchitectureConfig.by_architecture.values()
            if not cls.fixes_l0
        }
        fixed_by_k = "k" in searched and not priced.intersection(searched)
        hook = ("hook",) if "hook" in searched else ()
        return (*hook, "k" if fixed_by_k else "l0")

    def check_setup(self, setup: SaeTrainSetup) -> list[tuple[tuple[str | int, ...], str]]:
        """Faults of the setup that no single key shows: (path of the key, message)."""
        faults: list[tuple[tuple[str | int, ...], str]] = []
        shape = known_shapes(setup.model)
        for index, hook in enumerate(setup.hooks):
            if hook in setup.hooks[:index]:
                faults.append((("hooks", index), f"hook {hook!r} stands twice; drop one"))
            try:
                check_hook(hook, shape)
            except UnknownHook as error:
                faults.append((("hooks", index), str(error)))
        if setup.tokens < setup.batch_tokens:
            message = (
                f"tokens={format_tokens(setup.tokens)} is less than one batch of "
                f"batch_tokens={setup.batch_tokens}; raise tokens or lower batch_tokens"
            )
            faults.append((("tokens",), message))
        if setup.buffer_tokens is not None and setup.buffer_tokens < setup.batch_tokens:
            message = (
                f"buffer_tokens={setup.buffer_tokens} is below batch_tokens={setup.batch_tokens}; "
                "raise it or lower the batch"
            )
            faults.append((("buffer_tokens",), message))
        if shape is not None and setup.data.context > shape.max_context:
            message = (
                f"context={setup.data.context} exceeds the {shape.max_context} tokens that "
                f"{setup.model.label} can read at once; lower it"
            )
            faults.append((("data", "context"), message))
        return faults

    def check_here(self, setup: SaeTrainSetup) -> list[tuple[tuple[str | int, ...], str]]:
        """A model's or text's files that are not there, or are visibly something else."""
        faults: list[tuple[tuple[str | int, ...], str]] = []
        if setup.model.name is not None:
            try:
                local_model(setup.model.name)
            except BadModel as error:
                faults.append((("model", "name"), str(error)))
        if setup.data.files is not None:
            try:
                open_source(setup.data).check()
            except BadData as error:
                faults.append((("data", "files"), str(error)))
        if setup.evaluation.probe is not None:
            at = ("evaluation", "probe", "data", "files")
            faults += missing_files(setup.evaluation.probe.data.files, at)
        return faults

    def check(self, setup: SaeTrainSetup, config: Config) -> list[str]:
        faults = self.architecture(setup, config).faults(total_steps=max(1, setup.num_steps))
        hook = config.get("hook")
        if hook is not None and hook not in setup.hooks:
            known = ", ".join(setup.hooks)
            faults.append(f"hook={hook} is not among the sweep's hooks ({known}); add it there")
        if hook is None and len(setup.hooks) > 1:
            known = ", ".join(setup.hooks)
            faults.append(f"hook is not given, and the sweep has several ({known}); name one")
        return faults

    def total_tokens(self, setup: SaeTrainSetup, config: Config) -> int:
        """Whole batches only: what is left over of `tokens` would be no full step."""
        del config
        return setup.num_steps * setup.batch_tokens

    def architecture(self, setup: SaeTrainSetup, config: Config) -> ArchitectureConfig:
        """The SAE that a trial's parameters describe, with its hook filled in.

        Raises:
            ValueError: a parameter is missing, unknown or out of range.
        """
        hook = config.get("hook", setup.hooks[0] if len(setup.hooks) == 1 else None)
        return parse_architecture({**config, "hook": hook})

    def stream_spec(self, setup: SaeTrainSetup, device: str) -> StreamSpec:
        """The stream that all trials of the sweep train on."""
        return StreamSpec(
            model=setup.model,
            data=setup.data,
            hooks=setup.hooks,
            batch_tokens=setup.batch_tokens,
            seed=setup.stream_seed,
            buffer_tokens=setup.buffer_tokens,
            held_out_tokens=setup.held_out_tokens,
            lm_batch_contexts=setup.lm_batch_contexts,
            device=device,
            cache=None if setup.cache is None else CacheSpec(**setup.cache.model_dump()),
            overlap=setup.overlap,
        )

    def footprint(self, setup: SaeTrainSetup, config: Config) -> Footprint:
        stream = self.stream_spec(setup, "auto")
        return footprint(stream, self.architecture(setup, config), setup.evaluation.ce_tokens)

    def shared_key(self, setup: SaeTrainSetup) -> str:
        return self.stream_spec(setup, "auto").key

    def runner(self, context: TrialContext) -> TrialRunner:
        from jobs.runners.sae_pack import SaePackRunner

        return SaePackRunner(context)
