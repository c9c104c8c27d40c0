"""Activations with planted directions, of sizes with a heavy tail, as a language model's have.

Shape suffixes: B = tokens in the batch, D = d_in, P = planted directions, A = active ones.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PlantedActivations:
    """x = size * (sparse non-negative code @ planted directions) + mean + noise, by position.

    Batch n is the same whoever asks and whenever. Drawn and kept in float64: both sides of a
    comparison cast the same numbers.
    """

    def __init__(
        self,
        *,
        d_in: int = 16,
        num_planted: int = 48,
        num_active: int = 4,
        batch_tokens: int = 64,
        noise: float = 0.05,
        tail: float = 0.8,
        unit: float = 0.25,
    ) -> None:
        self.d_in, self.batch_tokens = d_in, batch_tokens
        self._num_active, self._noise, self._tail, self._unit = num_active, noise, tail, unit
        generator = torch.Generator().manual_seed(20)
        planted_PD = torch.randn(num_planted, d_in, generator=generator, dtype=torch.float64)
        self._planted_PD = planted_PD / planted_PD.norm(dim=-1, keepdim=True)
        self.mean_D = unit * torch.randn(d_in, generator=generator, dtype=torch.float64)
        sample_BD = torch.cat([self.batch_at(10**6 + n) for n in range(8)])
        self.scale = float(d_in**0.5 / sample_BD.norm(dim=-1).mean())

    def batch_at(self, position: int) -> Tensor:
        """Activations of one batch, [tokens, d_in] in float64."""
        generator = torch.Generator().manual_seed(position)
        num_tokens, num_planted = self.batch_tokens, len(self._planted_PD)
        scores_BP = torch.rand(num_tokens, num_planted, generator=generator, dtype=torch.float64)
        # Some directions are common and most are rare, so that latents come to be dead.
        scores_BP *= torch.linspace(1, 4, num_planted, dtype=torch.float64)
        index_BA = scores_BP.topk(self._num_active, dim=-1).indices
        strength_BA = 1 + torch.rand(index_BA.shape, generator=generator, dtype=torch.float64)
        code_BP = torch.zeros_like(scores_BP).scatter_(-1, index_BA, strength_BA)
        size_B = torch.randn(num_tokens, generator=generator, dtype=torch.float64)
        size_B = self._unit * (self._tail * size_B).exp()
        noise_BD = torch.randn(num_tokens, self.d_in, generator=generator, dtype=torch.float64)
        noise_BD *= self._unit * self._noise
        return size_B[:, None] * (code_BP @ self._planted_PD) + self.mean_D + noise_BD
