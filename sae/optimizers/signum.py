"""Signum: every weight is moved by the same length, against the sign of its mean gradient.

m <- beta * m + (1 - beta) * g;  w <- w - lr * sign(m): signSGD with momentum, algorithm 2 of
Bernstein et al. 2018 (arXiv 1802.04434), on one worker and without weight decay. No bias
correction: it would change no sign. Where the mean is zero a weight stays.

One moment instead of Adam's two. A gradient's size does not count, only how it compares with its
own past, so learning rates are not Adam's: a weight moves by `lr` in every step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sae.optimizers.by_parameter import ByParameter


class Signum(ByParameter):
    """As a torch optimizer.

    Args:
        lr: how far each weight moves in a step.
        beta: decay of the mean gradient.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, beta: float) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def move(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter along a gradient of its shape."""
        state = self.state[param]
        if not state:
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        mean: Tensor = state["exp_avg"]
        mean.lerp_(grad, 1 - group["beta"])
        param.add_(mean.sign(), alpha=-group["lr"])
