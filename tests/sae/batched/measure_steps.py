"""Live bytes of members and of their batched steps, whatever device the kernels are for.

Shape suffixes: B = tokens in the batch, D = d_in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.architectures import ArchitectureConfig
from sae.batched.backend import BatchedBackend, family_of
from sae.batched.kernels import make_kernels
from sae.batched.kernels.base import StepKernels
from sae.batched.kernels.triton_kernels import TritonKernels
from sae.batched.outcome import Bench
from sae.batched.training import train
from sae.batched.workspace import Workspace
from sae.member import Member
from tests.sae.batched.live_bytes import LiveBytes

NUM_STEPS = 3


class UnlaunchedTriton(TritonKernels):
    """The Triton kernels without their programs: all that is allocated, nothing that is summed.

    What programs would write stays as it was in memory, so shapes alone mean something.
    """

    def _launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **shape: int) -> None:
        del kernel, grid, arguments, shape


@dataclass(frozen=True)
class LiveMemory:
    """What members and steps came to, in bytes."""

    members: int
    """Alive when no step is taken, without the buffers that steps keep."""
    steps: int
    """Buffers that steps keep, and temporaries at the peak."""
    num_dead: int
    """Latents of the first member that were dead before its last step."""


def kernels_named(name: str, workspace: Workspace) -> StepKernels:
    """`triton` (unlaunched), `interpreted`, `torch`, or `cpp`."""
    device = torch.device("cpu")
    if name == "triton":
        return UnlaunchedTriton(device, workspace)
    if name == "interpreted":
        return TritonKernels(device, workspace)
    return make_kernels(device, workspace, name)


def live_memory(
    configs: Sequence[ArchitectureConfig], *, d_in: int, batch_tokens: int, kernels: str
) -> LiveMemory:
    """Step members in turn and count; the batch itself is not counted."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(batch_tokens, d_in, generator=generator) for _ in range(NUM_STEPS)]
    workspace = Workspace()
    bench = Bench(kernels_named(kernels, workspace), workspace)
    mean_D, num_dead = batches[0].mean(0), 0
    with LiveBytes([*batches, mean_D]) as live:
        members = members_of(configs, mean_D, batch_tokens)
        live.start_peak()
        for batch_BD in batches:
            num_dead = int(members[0].trainer.dead_neurons.sum())
            for member in members:
                family = family_of(member.config)
                assert family is not None
                train(member, batch_BD, family, bench)
                member.trainer.n_training_steps += 1
        kept = live.alive - workspace.num_bytes
    return LiveMemory(members=kept, steps=live.peak - kept, num_dead=num_dead)


def members_of(
    configs: Sequence[ArchitectureConfig], mean_D: Tensor, batch_tokens: int
) -> list[Member]:
    """Fresh members on the device of the mean activation."""
    return [
        Member(
            config,
            hook="layer",
            d_in=len(mean_D),
            total_tokens=100 * batch_tokens,
            batch_tokens=batch_tokens,
            scale=1.5,
            mean_D=mean_D,
            device=mean_D.device,
        )
        for config in configs
    ]


def allocated_memory(
    configs: Sequence[ArchitectureConfig], *, d_in: int, batch_tokens: int, device: torch.device
) -> tuple[int, int]:
    """What a CUDA device's allocator gave out at most for members and steps, in bytes.

    Returns it, and how many latents of the first member were dead before its last step.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(batch_tokens, d_in, generator=generator).to(device) for _ in range(NUM_STEPS)
    ]
    mean_D = batches[0].mean(0)
    before, num_dead = torch.cuda.memory_allocated(device), 0
    members = members_of(configs, mean_D, batch_tokens)
    backend = BatchedBackend(device)
    torch.cuda.reset_peak_memory_stats(device)
    for position, batch_BD in enumerate(batches):
        num_dead = int(members[0].trainer.dead_neurons.sum())
        failures = backend.step(dict(zip("abcd", members, strict=False)), batch_BD, position)
        assert not failures, failures
    return torch.cuda.max_memory_allocated(device) - before, num_dead
