"""Matryoshka BatchTopK: nested dictionaries that reconstruct on their own (arXiv 2503.17547)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sae.architectures.base import BatchTopKFamilyConfig

if TYPE_CHECKING:
    from sae.architectures.base import AnyTrainingSAE


class MatryoshkaBatchTopKConfig(BatchTopKFamilyConfig):
    """BatchTopK whose first latents, at several widths, reconstruct the activation alone."""

    peak_latent_buffers: ClassVar[float] = 11.3

    architecture: Literal["matryoshka_batchtopk"] = "matryoshka_batchtopk"
    k: float = Field(gt=0)
    """Latents kept for each token, on average over a batch."""
    matryoshka_widths: tuple[int, ...] | None = None
    """Widths of the inner levels, rising; a sixteenth and a quarter of d_sae unless asked for.
    The whole dictionary is always the last level."""
    use_matryoshka_aux_loss: bool = False
    """Whether dead latents reconstruct what their own level leaves over, not the whole SAE."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Widths of all levels, the whole dictionary last."""
        widths = self.matryoshka_widths
        if widths is None:
            widths = (self.d_sae // 16, self.d_sae // 4)
        return widths if widths and widths[-1] == self.d_sae else (*widths, self.d_sae)

    def faults(self, *, total_steps: int | None = None) -> list[str]:
        faults = super().faults(total_steps=total_steps)
        rising = all(narrow < wide for narrow, wide in pairwise(self.levels))
        if self.levels[0] < 1 or not rising:
            faults.append(
                f"matryoshka_widths={list(self.levels)} must be positive and rise up to "
                f"d_sae={self.d_sae}; list rising widths below d_sae"
            )
        elif len(self.levels) == 1:
            faults.append(
                f"matryoshka_widths={list(self.levels)} has no level inside d_sae={self.d_sae}, "
                "which is plain batchtopk; add a width or use architecture: batchtopk"
            )
        return faults

    def _build(self, d_in: int, metadata: Mapping[str, Any]) -> AnyTrainingSAE:
        from sae_lens.saes.matryoshka_batchtopk_sae import (
            MatryoshkaBatchTopKTrainingSAE,
            MatryoshkaBatchTopKTrainingSAEConfig,
        )

        return MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(
                k=self.k,
                topk_threshold_lr=self.topk_threshold_lr,
                matryoshka_widths=list(self.levels),
                use_matryoshka_aux_loss=self.use_matryoshka_aux_loss,
                use_sparse_activations=False,
                **self._topk_arguments(d_in, metadata),
            )
        )
