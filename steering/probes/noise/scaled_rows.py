"""Products of scaled rows and weights that are trained; sparse rows stay sparse. A torch module.

Shape suffixes: N = rows, D = columns, L = outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from steering.probes.matrices import Matrix, Scaling, is_sparse

__all__ = ["Rows", "scaled_rows", "times_weight"]

Rows = Any
"""A float32 tensor, or a scipy CSR matrix of float32."""


class _SparseTimes(torch.autograd.Function):
    """By scipy: torch's own sparse product took sixty times as long, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x_ND: Any, weight_DL: Tensor) -> Tensor:
        ctx.x_ND = x_ND
        return torch.from_numpy(np.asarray(x_ND @ weight_DL.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor]:
        (grad_NL,) = grads
        return None, torch.from_numpy(np.asarray(ctx.x_ND.T @ grad_NL.numpy()))


def scaled_rows(x: Matrix, scaling: Scaling) -> Rows:
    """Few rows, scaled as `Scaling.apply` does, in float32."""
    scale_D = scaling.scale_D.astype(np.float32)
    if is_sparse(x):
        out = x.astype(np.float32, copy=True)
        out.data /= scale_D[out.indices]
        return out
    values = np.asarray(x, dtype=np.float32)
    return torch.from_numpy((values - scaling.shift_D.astype(np.float32)) / scale_D)


def times_weight(rows: Rows, weight_DL: Tensor) -> Tensor:
    """Their product [N, L], through which gradients reach the weight."""
    if is_sparse(rows):
        product: Tensor = _SparseTimes.apply(rows, weight_DL)  # type: ignore[no-untyped-call]
        return product
    return rows @ weight_DL
