"""One SAE in training: sae_lens's trainer, and who steps it.

Shape suffixes: B = tokens in the batch, D = d_in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.optim import get_lr_scheduler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sae.activation_source import ActivationSource
from sae.architectures import ArchitectureConfig
from sae.device_clock import DeviceClock
from sae.optimizers.eight_bit_adam import EightBitAdam
from sae.optimizers.muon import Muon
from sae.optimizers.signum import Signum

FEATURE_SAMPLING_WINDOW_STEPS = 2000
"""Steps over which firing frequencies are counted before they start anew; sae_lens's default."""


Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Raw activations [N, D] to how many tokens each latent fires for [F] and reconstruction [N, D]."""


class Stepper(Protocol):
    """How a member is trained on one batch."""

    name: str
    """For the member's record: `reference`, `batched/cpp`."""
    identity: str
    """For the record: differs where results may differ in the last bits."""

    def loss_of_step(self, member: Member, batch_BD: Tensor) -> Tensor:
        """Train a member on raw activations; returns the loss, a scalar."""

    def forward_of(self, member: Member) -> Forward | None:
        """A member as it trains, by the stepper's own kernels; None: sae_lens's are as good.

        What is returned may be used beside a step in another thread.
        """


class ReferenceStepper:
    """sae_lens's own trainer."""

    name = "reference"
    identity = f"torch {torch.__version__}"

    def loss_of_step(self, member: Member, batch_BD: Tensor) -> Tensor:
        """Train a member on raw activations; returns the loss, a scalar."""
        loss: Tensor = member.trainer.step(batch_BD.to(member.device, member.sae.dtype)).loss
        return loss

    def forward_of(self, member: Member) -> Forward | None:
        """None."""
        del member
        return None


REFERENCE_STEPPER = ReferenceStepper()


class LossTally:
    """Mean and maximum of the training loss since the last report, without a host sync a step."""

    def __init__(self, device: torch.device) -> None:
        self.sum = torch.zeros((), dtype=torch.float32, device=device)
        self.max = torch.full((), -torch.inf, dtype=torch.float32, device=device)
        self.num_steps = 0
        self.last: dict[str, float] = {}

    def add(self, loss: Tensor) -> None:
        """Count one step's loss, a scalar; NaN stays NaN in both numbers."""
        loss = loss.detach().float()
        self.sum += loss
        self.max = torch.maximum(self.max, loss)
        self.num_steps += 1

    def report(self) -> dict[str, float]:
        """`loss` and `loss_max` since the last report, or the last report if no step came since.

        Empty before the first step: there is no loss yet, and NaN would count as divergence.
        """
        if self.num_steps:
            self.last = {"loss": self.sum.item() / self.num_steps, "loss_max": self.max.item()}
            self.sum.zero_()
            self.max.fill_(-torch.inf)
            self.num_steps = 0
        return dict(self.last)


class Member:
    """One SAE: weights, optimizer, schedules and the record of what it has been fed.

    Args:
        config: the SAE and how it is trained.
        hook: module whose output it reconstructs.
        d_in: width of the activations.
        total_tokens: length of the whole training; the schedules are laid out over it.
        batch_tokens: tokens in a step's batch.
        scale: factor on the activations where the config normalises them.
        mean_D: mean activation, unscaled, where the config starts the decoder's bias from it.
        metadata: what sae_lens stores with the SAE.

    Raises:
        ValueError: the configuration has faults, alone or for so many steps.
    """

    def __init__(
        self,
        config: ArchitectureConfig,
        *,
        hook: str,
        d_in: int,
        total_tokens: int,
        batch_tokens: int,
        scale: float,
        mean_D: Tensor,
        device: str | torch.device = "cpu",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        faults = config.faults(total_steps=total_tokens // batch_tokens)
        if faults:
            raise ValueError("; ".join(faults))
        self.config = config
        self.hook = hook
        self.d_in = d_in
        self.total_tokens = total_tokens
        self.batch_tokens = batch_tokens
        self.device = torch.device(device)
        self.segments: list[tuple[int, int]] = []
        self.lengths: list[tuple[int, int]] = [(0, total_tokens)]
        """(step, total_tokens) from which on its schedules were laid out over that length."""
        self.earlier_step_seconds = 0.0
        """Time of the steps that were taken before the checkpoint it was resumed from."""
        self.stepper: Stepper = REFERENCE_STEPPER
        self.steppers: list[str] = []
        """Names of all that have stepped it, in order."""
        self._clock = DeviceClock(self.device)
        self.losses = LossTally(self.device)
        self.trainer = self._build_trainer(scale, mean_D, metadata or {})

    @classmethod
    def from_source(
        cls,
        config: ArchitectureConfig,
        source: ActivationSource,
        total_tokens: int,
        device: str | torch.device = "cpu",
    ) -> Member:
        """A fresh member for a source's activations. Raises ValueError for an unknown hook."""
        hook = hook_of(config, source)
        return cls(
            config,
            hook=hook,
            d_in=source.d_in(hook),
            total_tokens=total_tokens,
            batch_tokens=source.batch_tokens,
            scale=source.scale(hook),
            mean_D=source.mean(hook),
            device=device,
            metadata={"hook_name": hook},
        )

    def _build_trainer(
        self, scale: float, mean_D: Tensor, metadata: Mapping[str, Any]
    ) -> SAETrainer[Any, Any]:
        config = self.config
        sae = config.build_sae(self.d_in, self.device, metadata)
        normalises = config.normalize_activations == "expected_average_only_in"
        if config.b_dec_init == "mean":
            factor = scale if normalises else 1.0
            sae.b_dec.data.copy_(mean_D.to(self.device) * factor)
        trainer = SAETrainer(cfg=self.trainer_config(), sae=sae, data_provider=iter(()))
        other = other_optimizer(sae, config)
        if other is not None:
            trainer.optimizer = other
            trainer.lr_scheduler = lr_scheduler(trainer.cfg, other)
        if normalises:
            trainer.activation_scaler.scaling_factor = scale
        return trainer

    def trainer_config(self) -> SAETrainerConfig:
        """The sae_lens trainer's configuration, logging switched off."""
        config = self.config
        return SAETrainerConfig(
            total_training_samples=self.total_tokens,
            train_batch_size_samples=self.batch_tokens,
            lr=config.learning_rate,
            lr_end=config.final_lr,
            lr_scheduler_name=config.lr_schedule,
            lr_warm_up_steps=config.lr_warm_up_steps,
            lr_decay_steps=config.lr_decay_steps,
            adam_beta1=config.adam_beta1,
            adam_beta2=config.adam_beta2,
            device=str(self.device),
            autocast=config.autocast,
            dead_feature_window=config.dead_feature_window,
            feature_sampling_window=FEATURE_SAMPLING_WINDOW_STEPS,
            n_checkpoints=0,
            save_final_checkpoint=False,
            logger=LoggingConfig(log_to_wandb=False),
        )

    @property
    def sae(self) -> Any:
        """The sae_lens TrainingSAE; it works on activations times `scale`."""
        return self.trainer.sae

    @property
    def scale(self) -> float:
        """Factor between activations and what the SAE sees; 1 where nothing is normalised."""
        factor = self.trainer.activation_scaler.scaling_factor
        return 1.0 if factor is None else float(factor)

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return int(self.trainer.n_training_samples)

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return int(self.trainer.n_training_steps)

    @property
    def step_seconds(self) -> float:
        """Device time of all its steps; on CUDA, of those that are known to be done."""
        return self.earlier_step_seconds + self._clock.seconds

    @property
    def group_key(self) -> Hashable:
        """Members with equal keys have tensors of equal shape and may be stepped together."""
        return (
            self.hook,
            self.config.architecture,
            self.d_in,
            self.config.d_sae,
            self.config.dtype,
        )

    @property
    def end_position(self) -> int:
        """First stream position that it has not been fed, counted from its last one; 0 if new."""
        return self.segments[-1][1] if self.segments else 0

    def step(self, batch_BD: Tensor, position: int) -> None:
        """Train on the batch of one stream position; one optimizer step.

        Args:
            batch_BD: raw activations; scaled here.
            position: where in the stream the batch is from, for the record.
        """
        with self._clock:
            self._restart_frequencies_at_window()
            loss = self.stepper.loss_of_step(self, batch_BD)
            self.trainer.n_training_steps += 1
            self.losses.add(loss)
            self._record_position(position)
            self._record_stepper()

    def _restart_frequencies_at_window(self) -> None:
        """Start firing frequencies anew where sae_lens's `maybe_reset_sparsity` does.

        That one also draws a wandb histogram, a host sync that nobody would look at.
        """
        steps = self.steps
        if steps and steps % FEATURE_SAMPLING_WINDOW_STEPS == 0:
            self.trainer.act_freq_scores = torch.zeros_like(self.trainer.act_freq_scores)
            self.trainer.n_frac_active_samples = 0

    def _record_position(self, position: int) -> None:
        if self.segments and self.segments[-1][1] == position:
            self.segments[-1] = (self.segments[-1][0], position + 1)
        else:
            self.segments.append((position, position + 1))

    def stepper_record(self) -> dict[str, Any]:
        """Who stepped it, as JSON values: a replay by another differs in the last bits."""
        return {
            "backend": self.stepper.name,
            "kernels": self.stepper.identity,
            "backends": list(self.steppers),
        }

    def _record_stepper(self) -> None:
        if self.stepper.name not in self.steppers:
            self.steppers.append(self.stepper.name)

    def drop_gradients(self) -> None:
        """Free what a step that broke off has left behind."""
        self.trainer.optimizer.zero_grad(set_to_none=True)


def other_optimizer(sae: Any, config: ArchitectureConfig) -> torch.optim.Optimizer | None:
    """What a configuration asks for in the place of the Adam that sae_lens's trainer makes."""
    lr = config.learning_rate
    if config.optimizer == "signum":
        return Signum(sae.parameters(), lr=lr, beta=config.signum_beta)
    betas = (config.adam_beta1, config.adam_beta2)
    if config.optimizer == "muon":
        products = torch.bfloat16 if config.autocast else None
        return Muon(sae.parameters(), lr, config.muon_momentum, betas, products)
    if config.adam_moments == "8bit":
        return EightBitAdam(sae.parameters(), lr=lr, betas=betas, columns=(sae.W_enc,))
    return None


def lr_scheduler(
    settings: SAETrainerConfig, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's schedule, as sae_lens's trainer makes it for its own optimizer."""
    return get_lr_scheduler(
        settings.lr_scheduler_name,
        lr=settings.lr,
        optimizer=optimizer,
        warm_up_steps=settings.lr_warm_up_steps,
        decay_steps=settings.lr_decay_steps,
        training_steps=settings.total_training_steps,
        lr_end=settings.lr_end if settings.lr_end is not None else settings.lr / 10,
        num_cycles=settings.n_restart_cycles,
    )


def hook_of(config: ArchitectureConfig, source: ActivationSource) -> str:
    """The hook a configuration means. Raises ValueError if the source has it not, or has many."""
    hooks: Sequence[str] = source.hooks
    if config.hook is None and len(hooks) == 1:
        return hooks[0]
    if config.hook is not None and config.hook in hooks:
        return config.hook
    raise ValueError(
        f"hook={config.hook!r} is not in this stream; its hooks are {', '.join(hooks)}; name one"
    )
