"""Time that work takes on its device. A torch module."""

from __future__ import annotations

import time
from typing import Any

import torch


class DeviceClock:
    """Adds up the time of the work inside `with`, on CUDA without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._done_s = 0.0
        self._started_s = 0.0
        self._pending: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        if self._is_cuda:
            events = (_timed_event(), _timed_event())
            events[0].record()
            self._pending.append(events)
        self._started_s = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        if self._is_cuda:
            self._pending[-1][1].record()
        else:
            self._done_s += time.perf_counter() - self._started_s

    @property
    def seconds(self) -> float:
        """Time of all work that is known to be done."""
        while self._pending and self._pending[0][1].query():
            start, end = self._pending.pop(0)
            self._done_s += start.elapsed_time(end) / 1000
        return self._done_s


def _timed_event() -> Any:
    event: Any = torch.cuda.Event
    return event(enable_timing=True)
