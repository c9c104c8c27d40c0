"""Gated: one path decides which latents fire, another how strongly (arXiv 2404.16014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sae.architectures.base import ArchitectureConfig

if TYPE_CHECKING:
    from sae.architectures.base import AnyTrainingSAE


class GatedConfig(ArchitectureConfig):
    """Gate and magnitude with shared encoder weights, made sparse by a price on the gate."""

    sparsity_knob: ClassVar[str] = "l1_coefficient"
    fixes_l0: ClassVar[bool] = False
    peak_latent_buffers: ClassVar[float] = 8.9
    peak_weight_buffers: ClassVar[float] = 4.2

    architecture: Literal["gated"] = "gated"
    l1_coefficient: float = Field(ge=0)
    """Price of a gate's pre-activation times its latent's decoder norm."""
    l1_warm_up_steps: int = Field(default=0, ge=0)
    """Steps in which the price rises linearly from zero."""

    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig

        return GatedTrainingSAE(
            GatedTrainingSAEConfig(
                l1_coefficient=self.l1_coefficient,
                l1_warm_up_steps=self.l1_warm_up_steps,
                **self._shared_arguments(d_in, metadata),
            )
        )
