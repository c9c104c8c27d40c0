"""The events of one trial in the order that counts, cut into its lives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Diverged,
    Failed,
    Finished,
    Retried,
    Stopped,
    TrialEvent,
)

_STAMPS = frozenset({"writer", "seq", "at", "epoch", "life"})


@dataclass(frozen=True)
class Story:
    """One trial: what was said of it, by (life, epoch, seq); no clock decides."""

    trial: str
    events: tuple[AnyEvent, ...]

    @property
    def lives(self) -> list[tuple[AnyEvent, ...]]:
        """Its events life by life: a retry begins the next one."""
        last = max((_life(event) for event in self.events), default=0)
        own = [event for event in self.events if not isinstance(event, Retried)]
        return [tuple(e for e in own if _life(e) == life) for life in range(last + 1)]


def stories_of(events: Iterable[AnyEvent]) -> dict[str, Story]:
    """Every trial's story."""
    by_trial: dict[str, list[AnyEvent]] = {}
    for event in events:
        if isinstance(event, TrialEvent):
            by_trial.setdefault(event.trial, []).append(event)
    return {
        trial: Story(trial, tuple(sorted(found, key=_place)))
        for trial, found in sorted(by_trial.items())
    }


def is_end(event: AnyEvent) -> bool:
    """Whether a trial's life is over with it."""
    if isinstance(event, Failed):
        return event.final
    return isinstance(event, Stopped | Diverged | Finished | Cancelled)


def said(event: AnyEvent) -> dict[str, Any]:
    """What an event says, without who said it, when and under which lease."""
    return event.model_dump(mode="json", exclude=set(_STAMPS))


def _life(event: AnyEvent) -> int:
    return event.life if isinstance(event, TrialEvent) else 0


def _epoch(event: AnyEvent) -> float:
    epoch = event.epoch if isinstance(event, TrialEvent) else 0
    return inf if isinstance(event, Cancelled) and epoch == 0 else epoch


def _place(event: AnyEvent) -> tuple[int, float, int, str]:
    return (_life(event), _epoch(event), event.seq, event.writer)
