"""BatchTopK: the k largest latents a token, counted over the batch (Bussmann et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sae.architectures.base import BatchTopKFamilyConfig

if TYPE_CHECKING:
    from sae.architectures.base import AnyTrainingSAE


class BatchTopKConfig(BatchTopKFamilyConfig):
    """Keep k latents a token on average over the batch; exported as JumpReLU with a threshold."""

    peak_latent_buffers: ClassVar[float] = 10.0

    architecture: Literal["batchtopk"] = "batchtopk"
    k: float = Field(gt=0)
    """Latents kept for each token, on average over a batch."""

    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

        return BatchTopKTrainingSAE(
            BatchTopKTrainingSAEConfig(
                k=self.k,
                topk_threshold_lr=self.topk_threshold_lr,
                use_sparse_activations=False,
                **self._topk_arguments(d_in, metadata),
            )
        )
