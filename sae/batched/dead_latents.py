"""Which latents are dead, asked of the device only when some may be.

Whether there are any decides whether the auxiliary loss is computed, and a host that asks waits for
all that the device has yet to do. So the longest silence of any latent travels to the host behind
the steps: it grows by at most one a step, so one that came late still says until when nobody dies.

Shape suffixes: F = latents, X = dead latents.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sae.member import Member


class Silence:
    """The longest silence of one member's latents, in steps, as the host last heard of it."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._host = torch.zeros((), dtype=torch.int64, pin_memory=self._is_cuda)
        self._copied: Any = None
        self._travelling_since: int | None = None
        self._known: tuple[int, int] | None = None
        """Longest silence, after so many steps."""

    def note(self, since_fired_F: Tensor, steps: int) -> None:
        """Send the longest silence after so many steps, unless one is still on its way."""
        self._collect()
        if self._travelling_since is not None:
            return
        self._host.copy_(since_fired_F.max().to(torch.int64), non_blocking=True)
        self._travelling_since = steps
        if self._is_cuda:
            event: Any = torch.cuda.Event
            self._copied = event()
            self._copied.record()

    def longest(self, steps: int) -> int | None:
        """What it may be at most after so many steps; None if nothing is known of it."""
        self._collect()
        if self._known is None or self._known[1] > steps:
            return None
        return self._known[0] + steps - self._known[1]

    def _has_arrived(self) -> bool:
        return self._copied is None or bool(self._copied.query())

    def _collect(self) -> None:
        if self._travelling_since is not None and self._has_arrived():
            self._known = (int(self._host), self._travelling_since)
            self._travelling_since = None


class DeadLatents:
    """Remembers the silence of every member that it was told of; not for two threads."""

    def __init__(self) -> None:
        self._silences: WeakKeyDictionary[Member, Silence] = WeakKeyDictionary()

    def indices(self, member: Member, dead_F: Tensor) -> Tensor | None:
        """Indices of the dead latents before the member's next step; None if there are none."""
        silence = self._silences.get(member)
        longest = silence.longest(member.steps) if silence else None
        if longest is not None and longest <= member.trainer.cfg.dead_feature_window:
            return None
        dead_X = dead_F.nonzero().squeeze(1)
        return dead_X if len(dead_X) else None

    def note(self, member: Member) -> None:
        """Called in a member's step, once its firing was counted."""
        if member not in self._silences:
            self._silences[member] = Silence(member.device)
        since_fired_F = member.trainer.n_forward_passes_since_fired
        self._silences[member].note(since_fired_F, member.steps + 1)
