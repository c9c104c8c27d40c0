"""One Adam update: its numbers, and the formula by torch operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class AdamRule:
    """Numbers of one Adam update, as torch's `Adam` with neither decay nor amsgrad has them."""

    clip: Tensor
    """Factor on the gradient, a scalar."""
    beta1: float
    beta2: float
    eps: float
    step_size: float
    """Learning rate over the first bias correction."""
    root_correction2: float
    """Square root of the second bias correction."""


def adam_rule(group: Mapping[str, Any], step: int, clip: Tensor) -> AdamRule:
    """The numbers of an optimizer's step number `step`, counted from one.

    Args:
        group: the optimizer's parameter group: `betas`, `eps`, `lr`.
        clip: factor on the gradient, a scalar.
    """
    beta1, beta2 = group["betas"]
    return AdamRule(
        clip=clip,
        beta1=beta1,
        beta2=beta2,
        eps=group["eps"],
        step_size=group["lr"] / (1 - beta1**step),
        root_correction2=(1 - beta2**step) ** 0.5,
    )


def torch_adam(param: Tensor, grad: Tensor, mean: Tensor, square: Tensor, rule: AdamRule) -> None:
    """Torch's Adam in place, operation by operation; all tensors are of one shape and type."""
    grad = grad * rule.clip.to(grad.dtype)
    mean.lerp_(grad, 1 - rule.beta1)
    square.mul_(rule.beta2).addcmul_(grad, grad, value=1 - rule.beta2)
    denominator = (square.sqrt() / rule.root_correction2).add_(rule.eps)
    param.addcdiv_(mean, denominator, value=-rule.step_size)
