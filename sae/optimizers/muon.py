"""Muon: a weight matrix moves along the orthogonal matrix nearest to its mean gradient.

M <- mu M + (1 - mu) G;  U = mu M + (1 - mu) G (Nesterov);  W <- W - lr * scale * msign(U), where
msign(U) = (U U^T)^(-1/2) U is approached by five Newton-Schulz iterations of a quintic polynomial:
Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
(kellerjordan.github.io/posts/muon). No weight decay: sae_lens has none.

scale = 0.2 sqrt(max(rows, columns)) gives a step the root mean square of Adam's usual one (Liu et
al. 2025, "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2), so one learning rate
does for the encoder, the decoder, and what is no matrix: biases and thresholds are Adam's.

`torch.optim.Muon` takes matrices only, and multiplies in bfloat16 only, so that no parity in
float64 could be shown of it; tests compare with it.

The iterations cost 5 * (4 d_in^2 d_sae + 2 d_in^3) FLOP for each of both weights, however large the
batch. They are taken in the weights' type, in bfloat16 with autocast.

Shape suffixes: R = rows, C = columns, the fewer are rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sae.architectures.base import MUON_ITERATIONS
from sae.optimizers.adam_rule import adam_rule, torch_adam
from sae.optimizers.by_parameter import ByParameter, adam_slots

ADAM_EPS = 1e-8
"""Of torch's Adam, which sae_lens leaves as it is."""
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""a x + b x^3 + c x^5 on each singular value: small ones grow fastest, none settles at 1 exactly,
five iterations bring all but the smallest into 0.7 to 1.2 (Jordan)."""
SMALLEST_NORM = 1e-7
"""A gradient of zeros stays one."""
RMS_OF_ADAM = 0.2


class Muon(ByParameter):
    """As a torch optimizer.

    Args:
        lr: what it would be for Adam.
        momentum: decay of a matrix's mean gradient.
        betas: Adam's, for what is no matrix.
        product_dtype: of the iterations; None: the parameter's.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        product_dtype: torch.dtype | None = None,
    ) -> None:
        self._product_dtype = product_dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": ADAM_EPS})

    @torch.no_grad()
    def move(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter along a gradient of its shape: a matrix by Muon, else by Adam."""
        state = self.state[param]
        if param.dim() != 2:
            if not state:
                state |= adam_slots(param)
            state["step"] += 1
            rule = adam_rule(group, int(state["step"]), torch.ones((), device=param.device))
            torch_adam(param, grad, state["exp_avg"], state["exp_avg_sq"], rule)
            return
        if not state:
            state["momentum"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        direction = orthogonal(
            torch.lerp(grad, state["momentum"], group["momentum"]),
            self._product_dtype or param.dtype,
        )
        param.add_(direction, alpha=-group["lr"] * RMS_OF_ADAM * max(param.shape) ** 0.5)


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About the orthogonal matrix nearest to one of any shape, computed and returned in `dtype`."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    turned_RC = (matrix.T if is_tall else matrix).to(dtype)
    del matrix  # no second one of its size beside the two that an iteration takes
    turned_RC = turned_RC / turned_RC.norm().clamp(min=SMALLEST_NORM)
    a, b, c = POLYNOMIAL
    for _ in range(MUON_ITERATIONS):
        gram_RR = turned_RC @ turned_RC.T
        terms_RR = torch.addmm(gram_RR, gram_RR, gram_RR, beta=b, alpha=c)
        turned_RC = torch.addmm(turned_RC, terms_RR, turned_RC, beta=a)
    return turned_RC.T if is_tall else turned_RC
