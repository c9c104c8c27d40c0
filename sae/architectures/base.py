"""What every architecture's configuration holds: the dictionary's width and how it is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch
    from sae_lens.saes.sae import TrainingSAE

    AnyTrainingSAE: TypeAlias = "TrainingSAE[Any]"

AUTO_LR = 2e-4
AUTO_LR_NUM_LATENTS = 2**14
"""`lr: auto` is AUTO_LR at this width."""

FLOAT32_BYTES = 4
DTYPE_BYTES = {"float32": FLOAT32_BYTES, "bfloat16": 2, "float64": 8}
MUON_ITERATIONS = 5
"""Newton-Schulz iterations of a step of Muon."""
MOMENT_BLOCK = 256
"""Numbers of an 8-bit moment that share one float32 scale."""

DRAWING = Lock()
"""Held while weights are drawn from torch's global generator, which all threads share."""


class ArchitectureConfig(BaseModel):
    """One SAE: its shape, its sparsity and how it is trained.

    A subclass that gives `architecture` a default registers itself under that name. Every field
    means what the field of that name means in sae_lens 6.54, and has its default unless the
    remark under it says otherwise.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    by_architecture: ClassVar[dict[str, type[ArchitectureConfig]]] = {}

    sparsity_knob: ClassVar[str]
    """The parameter that decides how many latents fire: `k`, `l1_coefficient`, `l0_coefficient`."""
    fixes_l0: ClassVar[bool]
    """Whether the knob is the number of latents that fire (k) rather than the price of one."""
    threshold_is_learned: ClassVar[bool] = False
    """Whether it is exported as JumpReLU with a threshold learned beside a top-k in training."""
    peak_latent_buffers: ClassVar[float]
    """Tensors of [batch, d_sae] alive at the peak of a step's passes; `sae.memory` uses it."""
    peak_weight_buffers: ClassVar[float] = 3.75
    """Tensors of [d_sae, d_in] alive at that peak, for each of encoder and decoder: the weight,
    Adam's two moments, and part of the gradients. Adam's own step may take more."""

    architecture: str
    d_sae: int = Field(gt=0)
    """Width of the dictionary, in latents."""
    hook: str | None = None
    """Module whose output is reconstructed; not asked for where the sweep has only one."""
    optimizer: Literal["adam", "signum", "muon"] = "adam"
    """adam (sae_lens). signum: the sign of the mean gradient, one moment instead of two (Bernstein
    et al. 2018, arXiv 1802.04434); its `lr` is how far each weight moves in a step. muon: encoder
    and decoder move along the orthogonal matrix nearest to their mean gradient, all else by Adam
    (Jordan et al. 2024, scaled as in Liu et al. 2025, arXiv 2502.16982); one moment, `lr` as for
    adam. It adds 40 d_in^2 d_sae FLOP to every step, of any batch; autocast takes them in bf16."""
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = 3e-4
    """The learning rate after warm-up, or `auto`: 2e-4 / sqrt(d_sae / 2^14), not for signum."""
    lr_schedule: Literal["constant", "cosineannealing"] = "constant"
    """What the learning rate does between warm-up and decay."""
    lr_end: float | None = Field(default=None, ge=0)
    """Where the cosine ends; a tenth of the learning rate unless asked for."""
    lr_warm_up_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises linearly."""
    lr_decay_steps: int = Field(default=0, ge=0)
    """Last steps, in which the learning rate falls linearly to zero."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of Adam's mean gradient."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of Adam's mean squared gradient."""
    adam_moments: Literal["full", "8bit"] = "full"
    """full: Adam's two moments in `dtype`, as sae_lens has them. 8bit: a byte each, and a float32
    scale for every 256 of a latent's (Dettmers et al. 2022, arXiv 2110.02861): 2 bytes a weight
    instead of 8, so that weights and moments take half the memory. Each step rounds the moments
    anew. On a planted dictionary 300 steps left 2% more variance unexplained in topk, 15% more
    where most latents were dead, and as much as full in standard, jumprelu and gated. Biases,
    thresholds and matrices below 4096 numbers stay full."""
    signum_beta: float = Field(default=0.9, ge=0, lt=1)
    """Decay of signum's mean gradient; 0: the sign of each batch's own (signSGD)."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Decay of muon's mean gradient."""
    dead_feature_window: int = Field(default=1000, ge=0)
    """Steps without firing after which a latent counts as dead."""
    decoder_init_norm: float | None = Field(default=0.1, gt=0)
    """Norm of each decoder row at the start; None keeps the Kaiming initialisation as drawn."""
    normalize_activations: Literal["none", "expected_average_only_in"] = "expected_average_only_in"
    """Scale activations to a mean norm of sqrt(d_in), undone at export. sae_lens: `none`."""
    apply_b_dec_to_input: bool = True
    """Whether the decoder's bias is taken off the input before encoding."""
    b_dec_init: Literal["zeros", "mean"] = "mean"
    """What the decoder's bias starts from: zeros (sae_lens), or the mean activation."""
    autocast: bool = False
    """Whether a step multiplies in bfloat16; weights, gradients and moments keep their type."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Type of weights and of Adam's moments."""
    init_seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the initial weights."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        field = cls.model_fields["architecture"]
        if field.is_required():
            return
        name = field.default
        known = cls.by_architecture.setdefault(name, cls)
        if known is not cls:
            raise TypeError(
                f"two architectures are named {name!r}: {known.__module__} and {cls.__module__}; "
                "rename one"
            )

    @property
    def learning_rate(self) -> float:
        """The learning rate after warm-up, as a number.

        `auto` falls with the square root of the width (Gao et al. 2024, arXiv 2406.04093, figure
        3), with the constant that EleutherAI's sparsify and dictionary_learning fitted to it:
        7.07e-5 at 131072 latents.
        """
        if self.lr == "auto":
            return AUTO_LR / (self.d_sae / AUTO_LR_NUM_LATENTS) ** 0.5
        return self.lr

    @property
    def final_lr(self) -> float:
        """Where the cosine ends: `lr_end`, else a tenth of the rate, as sae_lens has it."""
        return self.learning_rate / 10 if self.lr_end is None else self.lr_end

    @property
    def num_moments(self) -> int:
        """Tensors like a weight that the optimizer keeps of it."""
        return 2 if self.optimizer == "adam" else 1

    @property
    def moment_bytes(self) -> float:
        """Bytes of the optimizer's state for each weight."""
        if self.adam_moments == "8bit":
            return self.num_moments * (1 + FLOAT32_BYTES / MOMENT_BLOCK)
        return float(self.num_moments * DTYPE_BYTES[self.dtype])

    @property
    def sparsity(self) -> float:
        """Value of the sparsity knob."""
        return float(getattr(self, self.sparsity_knob))

    @property
    def coefficient_warm_up_steps(self) -> Mapping[str, int]:
        """Warm-ups other than the learning rate's, by field name, in steps."""
        return {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name.endswith("_warm_up_steps") and name != "lr_warm_up_steps"
        }

    def faults(self, *, total_steps: int | None = None) -> list[str]:
        """What no single field shows, as messages with rule, value and way out; empty if sound.

        Args:
            total_steps: length of the training where it is known: warm-ups and decay must fit.
        """
        faults = self._optimizer_faults()
        if self.final_lr > self.learning_rate:
            given = f"{self.learning_rate:g}" + (" (auto)" if self.lr == "auto" else "")
            faults.append(f"lr_end={self.final_lr:g} exceeds lr={given}; lower lr_end")
        if self.lr_schedule == "cosineannealing" and self.lr_decay_steps and self.final_lr == 0:
            faults.append(
                f"lr_end=0 leaves lr_decay_steps={self.lr_decay_steps} nothing to decay; "
                "drop lr_decay_steps or raise lr_end"
            )
        if self.autocast and self.dtype == "float64":
            faults.append(
                "autocast computes in bfloat16, which dtype=float64 asks not to; drop one"
            )
        if total_steps is not None:
            faults.extend(self._schedule_faults(total_steps))
        return faults

    def _optimizer_faults(self) -> list[str]:
        fields = type(self).model_fields
        unused = {
            "adam": ("signum_beta", "muon_momentum"),
            "signum": ("adam_beta1", "adam_beta2", "muon_momentum"),
            "muon": ("signum_beta",),
        }[self.optimizer]
        faults = [
            f"{name}={getattr(self, name):g} is not used by optimizer={self.optimizer}; drop it, "
            "or change the optimizer"
            for name in unused
            if getattr(self, name) != fields[name].default
        ]
        if self.adam_moments == "8bit" and self.optimizer != "adam":
            faults.append(
                f"adam_moments=8bit is not used by optimizer={self.optimizer}; drop it, or change "
                "the optimizer"
            )
        if self.adam_moments == "8bit" and self.dtype == "float64":
            faults.append(
                "adam_moments=8bit rounds the moments to a byte, which dtype=float64 asks not to; "
                "drop one"
            )
        if self.optimizer == "signum" and self.lr == "auto":
            faults.append(
                "lr=auto is a rule for adam, whose steps are of another length than those of "
                "optimizer=signum; give lr as a number"
            )
        return faults

    def _schedule_faults(self, total_steps: int) -> list[str]:
        faults = []
        if total_steps < 1:
            faults.append("the training is shorter than one batch; raise tokens or lower batch")
        scheduled = self.lr_warm_up_steps + self.lr_decay_steps
        if scheduled and scheduled >= total_steps:
            faults.append(
                f"lr_warm_up_steps={self.lr_warm_up_steps} + lr_decay_steps={self.lr_decay_steps} "
                f"must stay below the {total_steps} steps of the training; lower them or raise "
                "tokens"
            )
        for name, steps in self.coefficient_warm_up_steps.items():
            if steps > total_steps:
                faults.append(
                    f"{name}={steps} exceeds the {total_steps} steps of the training, so the "
                    "coefficient never reaches its value; lower it or raise tokens"
                )
        return faults

    def build_sae(
        self, d_in: int, device: str | torch.device, metadata: Mapping[str, Any]
    ) -> AnyTrainingSAE:
        """Build the sae_lens training SAE with weights drawn from `init_seed` alone.

        The weights are drawn on the CPU and moved, so that one seed gives one initialisation on
        every device, and the global random state is left as it was.

        Args:
            d_in: width of the activations.
            metadata: what sae_lens stores with the SAE (model_name, hook_name, ...).

        Raises:
            ValueError: the configuration has faults.
        """
        import torch

        faults = self.faults()
        if faults:
            raise ValueError("; ".join(faults))
        # The generator is the process's own, and members are attached from several threads.
        with DRAWING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.init_seed)
            sae = self._build(d_in, metadata)
        return sae.to(device=torch.device(device))

    def inference_latents(self, sae: AnyTrainingSAE, x_ND: torch.Tensor) -> torch.Tensor:
        """Latents as the exported SAE gives them, from a training SAE that is not yet folded.

        Args:
            x_ND: activations as the SAE sees them (scaled), [tokens, d_in].

        Returns:
            [tokens, d_sae], in the units of the training SAE.
        """
        return sae.encode(x_ND)

    def training_latents(self, sae: AnyTrainingSAE, x_ND: torch.Tensor) -> torch.Tensor:
        """Latents as a training step computes them; arguments as for `inference_latents`."""
        return sae.encode(x_ND)

    @abstractmethod
    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        """Build the sae_lens training SAE on the CPU, by keyword arguments."""

    def _shared_arguments(self, d_in: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that every sae_lens training configuration takes.

        sae_lens's `from_dict` drops misspelt keys in silence, so configurations are built by
        keyword alone, here and in each architecture's `_build`.
        """
        from sae_lens.saes.sae import SAEMetadata

        return {
            "d_in": d_in,
            "d_sae": self.d_sae,
            "dtype": self.dtype,
            "device": "cpu",
            "apply_b_dec_to_input": self.apply_b_dec_to_input,
            "normalize_activations": self.normalize_activations,
            "decoder_init_norm": self.decoder_init_norm,
            "metadata": SAEMetadata(**metadata),
        }


class TopKFamilyConfig(ArchitectureConfig):
    """What the architectures that keep the k largest latents have in common."""

    sparsity_knob: ClassVar[str] = "k"
    fixes_l0: ClassVar[bool] = True

    aux_loss_coefficient: float = Field(default=1.0, ge=0)
    """Weight of the loss that has dead latents reconstruct what the live ones leave over
    (Gao et al. 2024, appendix A.2)."""
    rescale_acts_by_decoder_norm: bool = True
    """Whether latents are ranked as if decoder rows had norm one."""

    def faults(self, *, total_steps: int | None = None) -> list[str]:
        faults = super().faults(total_steps=total_steps)
        if self.sparsity > self.d_sae:
            faults.append(
                f"k={self.sparsity:g} exceeds d_sae={self.d_sae}; lower k or widen the dictionary"
            )
        return faults

    def _topk_arguments(self, d_in: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **self._shared_arguments(d_in, metadata),
            "aux_loss_coefficient": self.aux_loss_coefficient,
            "rescale_acts_by_decoder_norm": self.rescale_acts_by_decoder_norm,
        }


class BatchTopKFamilyConfig(TopKFamilyConfig):
    """What the architectures have in common that count k over the batch while training.

    They are exported as JumpReLU with the learned threshold, which is what is measured at the end;
    reports on the way are of the SAE as it trains.
    """

    threshold_is_learned: ClassVar[bool] = True

    topk_threshold_lr: float = Field(default=0.01, gt=0, le=1)
    """How fast the exported threshold follows the smallest kept activation, a step."""

    def inference_latents(self, sae: AnyTrainingSAE, x_ND: torch.Tensor) -> torch.Tensor:
        pre_NF = sae.process_sae_in(x_ND) @ sae.W_enc + sae.b_enc
        if self.rescale_acts_by_decoder_norm:
            pre_NF = pre_NF * sae.W_dec.norm(dim=-1)
        return pre_NF.relu() * (pre_NF > sae.topk_threshold)


def architecture_class(name: object) -> type[ArchitectureConfig]:
    """Look an architecture up by name. Raises ValueError with the known ones and a suggestion."""
    known = ArchitectureConfig.by_architecture
    if isinstance(name, str) and name in known:
        return known[name]
    close = get_close_matches(str(name), known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"architecture={name!r} is unknown; known architectures: {', '.join(sorted(known))}."
        f"{suggestion}"
    )


def parse_architecture(parameters: Mapping[str, Any]) -> ArchitectureConfig:
    """Make the configuration that plain JSON values describe.

    Args:
        parameters: field name to value; `architecture` picks the class.

    Raises:
        ValueError: the architecture is missing or unknown, or (pydantic's ValidationError, a
            ValueError) a field is missing, unknown or out of range.
    """
    if "architecture" not in parameters:
        known = ", ".join(sorted(ArchitectureConfig.by_architecture))
        raise ValueError(f"architecture is not given; choose one of {known}")
    return architecture_class(parameters["architecture"]).model_validate(dict(parameters))
