"""TopK: the k largest latents of each token are kept (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sae.architectures.base import TopKFamilyConfig

if TYPE_CHECKING:
    from sae.architectures.base import AnyTrainingSAE


class TopKConfig(TopKFamilyConfig):
    """Keep the k largest latents of each token."""

    peak_latent_buffers: ClassVar[float] = 9.0

    architecture: Literal["topk"] = "topk"
    k: int = Field(gt=0)
    """Latents kept for each token."""

    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

        return TopKTrainingSAE(
            TopKTrainingSAEConfig(
                k=self.k, use_sparse_activations=False, **self._topk_arguments(d_in, metadata)
            )
        )
