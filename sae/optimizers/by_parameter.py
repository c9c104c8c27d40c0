"""What our optimizers have in common: each parameter is moved by its own gradient alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor


class ByParameter(torch.optim.Optimizer):
    """A torch optimizer whose step is `move` on each parameter that has a gradient."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "a closure would be the loss, which no step looks at"
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.move(param, param.grad, group)

    @abstractmethod
    def move(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter in place along a gradient of its shape, which may be a view."""


def adam_slots(param: Tensor) -> dict[str, Tensor]:
    """The state of a parameter before its first step, as torch's Adam makes it."""
    return {
        "step": torch.tensor(0.0, dtype=torch.float32),
        "exp_avg": torch.zeros_like(param, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(param, memory_format=torch.preserve_format),
    }
