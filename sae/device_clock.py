"""Time that work takes on its device. A torch module."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

import torch


class DeviceClock:
    """Adds up the time of the work inside `with`, on CUDA without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._done_s = 0.0
        self._started_s = 0.0
        self._started: Any = None
        self._pending: list[tuple[Any, Any]] = []
        self._lock = Lock()
        """`seconds` is asked for by other threads than the one that works."""

    def __enter__(self) -> None:
        if self._is_cuda:
            self._started = _timed_event()
            self._started.record()
        self._started_s = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        if not self._is_cuda:
            self._done_s += time.perf_counter() - self._started_s
            return
        ended = _timed_event()
        ended.record()
        # Only now: an event that was never recorded counts as done, but has no time.
        with self._lock:
            self._pending.append((self._started, ended))

    @property
    def seconds(self) -> float:
        """Time of all work that is known to be done."""
        with self._lock:
            while self._pending and self._pending[0][1].query():
                start, end = self._pending.pop(0)
                self._done_s += start.elapsed_time(end) / 1000
            return self._done_s


def _timed_event() -> Any:
    event: Any = torch.cuda.Event
    return event(enable_timing=True)
