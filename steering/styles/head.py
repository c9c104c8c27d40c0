"""From a style vector or an encoder's output to an embedding: a perceptron. A torch module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Fully connected layers with ReLU between them.

    Args:
        widths: of the input, the hidden layers and the embedding; two numbers are a linear map.
        normalize: whether embeddings are scaled to length one.
        seed: of the initial weights, drawn by a generator of their own.
        dropout: share of hidden activations set to zero in training.
    """

    def __init__(
        self, widths: Sequence[int], *, normalize: bool, seed: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.widths, self.normalize, self.dropout = tuple(widths), normalize, dropout
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        self.layers = nn.ModuleList(
            _linear(d_in, d_out, seed + n) for n, (d_in, d_out) in enumerate(pairs)
        )

    def forward(self, x_ND: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Embeddings [N, E] of inputs [N, D].

        Args:
            generator: draws what is dropped; none is while the head is not in training mode.
        """
        for layer in list(self.layers)[:-1]:
            x_ND = torch.relu(layer(x_ND))
            if self.training and self.dropout and generator is not None:
                kept = torch.rand(x_ND.shape, generator=generator) >= self.dropout
                x_ND = x_ND * kept.to(x_ND) / (1.0 - self.dropout)
        embedding_NE: Tensor = self.layers[-1](x_ND)
        return nn.functional.normalize(embedding_NE, dim=-1) if self.normalize else embedding_NE


def _linear(d_in: int, d_out: int, seed: int) -> nn.Linear:
    """torch's own initialisation, from a generator instead of the global one."""
    layer = nn.Linear(d_in, d_out, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    bound = d_in**-0.5
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            tensor.uniform_(-bound, bound, generator=generator)
    return layer
