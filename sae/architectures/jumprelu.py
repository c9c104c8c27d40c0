"""JumpReLU: a learned threshold a latent and a price on L0 (Rajamanoharan et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sae.architectures.base import ArchitectureConfig

if TYPE_CHECKING:
    import torch

    from sae.architectures.base import AnyTrainingSAE


class JumpReluConfig(ArchitectureConfig):
    """Latents that fire above a threshold of their own, made sparse by a price on firing."""

    sparsity_knob: ClassVar[str] = "l0_coefficient"
    fixes_l0: ClassVar[bool] = False
    peak_latent_buffers: ClassVar[float] = 7.2

    architecture: Literal["jumprelu"] = "jumprelu"
    l0_coefficient: float = Field(ge=0)
    """Price of a latent that fires."""
    l0_warm_up_steps: int = Field(default=0, ge=0)
    """Steps in which the price rises linearly from zero."""
    jumprelu_init_threshold: float = Field(default=0.01, ge=0)
    """Threshold at the start, in units of the pre-activation."""
    jumprelu_bandwidth: float = Field(default=0.05, gt=0)
    """Width of the straight-through estimator's window, in units of the pre-activation."""
    jumprelu_sparsity_loss_mode: Literal["step", "tanh", "quadratic"] = "step"
    """What is priced: L0 (DeepMind), a tanh of the activations (Anthropic), or the distance of
    L0 from `target_l0` (Gemma Scope 2)."""
    jumprelu_tanh_scale: float = Field(default=4.0, gt=0)
    """Scale inside the tanh; only for the mode `tanh`."""
    target_l0: float | None = Field(default=None, gt=0)
    """L0 aimed at; only for the mode `quadratic`, which needs it."""
    pre_act_loss_coefficient: float | None = Field(default=None, ge=0)
    """Price of dead latents' distance below their threshold; None leaves the loss out."""
    jumprelu_ste_to_input: bool = False
    """Whether the straight-through gradient also reaches the encoder (Anthropic)."""

    def faults(self, *, total_steps: int | None = None) -> list[str]:
        faults = super().faults(total_steps=total_steps)
        mode = self.jumprelu_sparsity_loss_mode
        if mode == "quadratic" and self.target_l0 is None:
            faults.append("jumprelu_sparsity_loss_mode=quadratic needs target_l0; give one")
        if mode != "quadratic" and self.target_l0 is not None:
            faults.append(
                f"target_l0={self.target_l0:g} is not used by jumprelu_sparsity_loss_mode={mode}; "
                "drop it or set the mode to quadratic"
            )
        if self.target_l0 is not None and self.target_l0 > self.d_sae:
            faults.append(
                f"target_l0={self.target_l0:g} exceeds d_sae={self.d_sae}; lower target_l0 or "
                "widen the dictionary"
            )
        return faults

    def inference_latents(self, sae: AnyTrainingSAE, x_ND: torch.Tensor) -> torch.Tensor:
        # Adam may leave a threshold below zero until the next step clamps it; the exported SAE
        # has a ReLU before the threshold.
        return sae.encode(x_ND).relu()

    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig

        return JumpReLUTrainingSAE(
            JumpReLUTrainingSAEConfig(
                l0_coefficient=self.l0_coefficient,
                l0_warm_up_steps=self.l0_warm_up_steps,
                jumprelu_init_threshold=self.jumprelu_init_threshold,
                jumprelu_bandwidth=self.jumprelu_bandwidth,
                jumprelu_sparsity_loss_mode=self.jumprelu_sparsity_loss_mode,
                jumprelu_tanh_scale=self.jumprelu_tanh_scale,
                target_l0=self.target_l0,
                pre_act_loss_coefficient=self.pre_act_loss_coefficient,
                jumprelu_ste_to_input=self.jumprelu_ste_to_input,
                **self._shared_arguments(d_in, metadata),
            )
        )
