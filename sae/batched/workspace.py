"""Buffers that a step needs and the next one needs again."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


class Workspace:
    """Uninitialised tensors by name; each name's memory grows to the largest ever asked for.

    What was taken under a name is overwritten when the name is taken again. Not for two threads.
    """

    def __init__(self) -> None:
        self._bytes: dict[tuple[str, torch.device], Tensor] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A contiguous tensor with whatever was left in it."""
        num_bytes = prod(shape) * dtype.itemsize
        held = self._bytes.get((name, device))
        if held is None or held.numel() < num_bytes:
            # Dropped first: old and new together may be what memory is short of.
            self._bytes.pop((name, device), None)
            held = torch.empty(num_bytes, dtype=torch.uint8, device=device)
            self._bytes[name, device] = held
        return held[:num_bytes].view(dtype).view(shape)

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(held.numel() for held in self._bytes.values())

    def clear(self) -> None:
        """Give the memory back."""
        self._bytes.clear()
