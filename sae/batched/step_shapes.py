"""Sizes that formulas of batched steps are made of. No torch: plans are made with them.

Units: `half` is a tensor [d_sae, d_in], `latents` one of [batch, d_sae], `inputs` one of
[batch, d_in].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sae.architectures import ArchitectureConfig

Kernels = Literal["cpp", "torch", "triton"]
"""`triton` is for CUDA, `cpp` for a CPU, `torch` for both."""

BYTES_BY_DTYPE = {"float32": 4, "float64": 8}
"""Dtypes that are stepped by hand."""
BFLOAT16_BYTES = 2
WEIGHT_BUFFER, WIDE_BUFFER = "bf16.weight", "pre.wide"
"""Of steps with autocast: a weight in bfloat16; pre-activations again in float32."""
SMALL_TENSORS = 12
"""Biases, their moments, and counters: numbers a latent, whatever the optimizer makes of them."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of one member's tensors and of what passes through it, in bytes."""

    config: ArchitectureConfig
    d_in: int
    batch_tokens: int
    kernels: Kernels
    dead_share: float
    on_cuda: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", BYTES_BY_DTYPE[self.config.dtype])

    @property
    def weights(self) -> float:
        """Numbers in encoder and decoder together."""
        return 2.0 * self.d_in * self.config.d_sae

    @property
    def half(self) -> float:
        return self.size * self.weights / 2

    @property
    def latents(self) -> float:
        return self.size * self.batch_tokens * self.config.d_sae

    @property
    def pre(self) -> float:
        """Pre-activations: in bfloat16 where products are."""
        return self.latents / self.narrowing

    @property
    def narrowing(self) -> float:
        """How much less an operand of the products takes than what it is made of."""
        return self.size / BFLOAT16_BYTES if self.config.autocast else 1.0

    @property
    def inputs(self) -> float:
        return self.size * self.batch_tokens * self.d_in

    @property
    def moments(self) -> float:
        """The optimizer's state of the weights."""
        return self.config.moment_bytes * self.weights

    @property
    def small(self) -> float:
        """Biases with their moments, and counters."""
        return SMALL_TENSORS * self.size * self.config.d_sae

    @property
    def member(self) -> float:
        """What it keeps as long as it is there."""
        return 2 * self.half + self.moments + self.small


@dataclass(frozen=True)
class StepBuffers:
    """What steps of one configuration take, once for all members, in bytes."""

    kept: Mapping[str, float]
    """Buffers that stay between steps, by their names."""
    passing: float
    """Temporaries that are alive together at the peak."""
