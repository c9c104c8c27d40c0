"""Measurements that may fail or come too late without costing the others their figures."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

from sae.step_backend import is_out_of_memory

TIME_IS_UP = "left out: the time was up"
OUT_OF_MEMORY = "out of memory"
FAILED = "failed"


class Clock:
    """Time that is left; what comes too late is left out, and the report says so."""

    def __init__(self, minutes: float) -> None:
        self._ends_s = time.monotonic() + 60 * minutes

    @property
    def is_up(self) -> bool:
        return time.monotonic() > self._ends_s


def tried(measure: Callable[[], float | str], what: str, clock: Clock) -> float | str:
    """Seconds, or why there are none."""
    if clock.is_up:
        return TIME_IS_UP
    try:
        found = measure()
    except Exception as error:  # one that fails must not cost the others their figures
        # Its frames hold the tensors.
        error.__traceback__ = None
        reason = OUT_OF_MEMORY if is_out_of_memory(error) else f"{FAILED}: {error}"
        print(f"{what}: {reason}")
        return reason
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    print(f"{what}: {found if isinstance(found, str) else f'{1e3 * found:.2f} ms a step of all'}")
    return found
