"""Standard: ReLU with an L1 penalty on activations times decoder norm (Anthropic, April 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sae.architectures.base import ArchitectureConfig

if TYPE_CHECKING:
    from sae.architectures.base import AnyTrainingSAE


class StandardConfig(ArchitectureConfig):
    """ReLU latents, made sparse by a price on their size."""

    sparsity_knob: ClassVar[str] = "l1_coefficient"
    fixes_l0: ClassVar[bool] = False
    peak_latent_buffers: ClassVar[float] = 5.7

    architecture: Literal["standard"] = "standard"
    l1_coefficient: float = Field(ge=0)
    """Price of a latent's activation times its decoder norm."""
    lp_norm: float = Field(default=1.0, gt=0)
    """Which p-norm of the activations is priced."""
    l1_warm_up_steps: int = Field(default=0, ge=0)
    """Steps in which the price rises linearly from zero."""

    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig

        return StandardTrainingSAE(
            StandardTrainingSAEConfig(
                l1_coefficient=self.l1_coefficient,
                lp_norm=self.lp_norm,
                l1_warm_up_steps=self.l1_warm_up_steps,
                **self._shared_arguments(d_in, metadata),
            )
        )
