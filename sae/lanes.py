"""Where the language model's passes are queued: among the steps, or beside them on a GPU.

A torch module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor


class Lane(Protocol):
    """An order of work on a device."""

    def working(self) -> Any:
        """A context in which work is queued on this lane."""

    def hand_over(self, tensors: Sequence[Tensor]) -> None:
        """Let the caller's own lane wait for what was queued here, and own these results."""


class MainLane:
    """The caller's own."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Nothing changes."""
        yield

    def hand_over(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to wait for."""


class SideLane:
    """A second CUDA stream: its kernels run where those of the steps leave the GPU idle.

    Launching is asynchronous, so one thread feeds both.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # The weights were written on the stream that is current now.
        self._stream.wait_stream(torch.cuda.current_stream(device))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work inside is queued on the second stream."""
        with torch.cuda.stream(self._stream):
            yield

    def hand_over(self, tensors: Sequence[Tensor]) -> None:
        """Make the current stream wait, on the GPU, for what was queued here."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in tensors:
            # Else its memory is used again on the second stream while the steps still read it.
            tensor.record_stream(current)


def side_lane(device: torch.device) -> SideLane | None:
    """A second lane; None on a CPU, whose cores are busy anyway."""
    return SideLane(device) if device.type == "cuda" else None


def has_room(device: torch.device, num_bytes: int) -> bool:
    """Whether so much could be allocated on a device without taking from anybody."""
    if device.type != "cuda":
        return True
    free = torch.cuda.mem_get_info(device)[0]
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + cached > num_bytes
