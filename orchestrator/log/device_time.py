"""What a trial used up, from its events: seconds on a device, dollars, and what of it was lost.

Each lease (epoch) counts its own device time from 0. Work that a later epoch did again, since it
went on from an older checkpoint, was lost: everything beyond the tokens it went on from. Between
two points where tokens and device time are both known (start, checkpoints, reports, end), device
time is taken to grow evenly with tokens. What ran after the last of them is in no figure here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from orchestrator.log.events import (
    Checkpointed,
    Failed,
    Finished,
    Preempted,
    Reported,
    Started,
    TrialEvent,
)


@dataclass
class EpochTime:
    """One epoch's device time. Seconds, unless the name says otherwise."""

    epoch: int
    start_tokens: int | None = None
    """Where it went on from; None while its start is not known."""
    usd_per_hour: float = 0.0
    """0: nobody knows."""
    price_source: str = ""
    begun_at: float = 0.0
    last_at: float = 0.0
    busy_seconds: float = 0.0
    lm_seconds: float = 0.0
    lm_alone_seconds: float = 0.0
    lost_seconds: float = 0.0
    """Of `busy_seconds`: what was or has to be done again."""
    unsaved_seconds: float = 0.0
    """Of `busy_seconds`: what no checkpoint holds and nobody has redone yet."""
    failed: bool = False
    """Whether it ended by an error of the trial, not by a preemption."""
    given_back: bool = False
    points: list[tuple[int, float]] = field(default_factory=list)
    """(tokens, device seconds so far), not in order."""

    @property
    def usd(self) -> float:
        """Dollars at the price noted when it began."""
        return self.busy_seconds * self.usd_per_hour / 3600

    def lose_unsaved(self) -> float:
        """Its driver is gone: what no checkpoint holds is lost. Answers how much that is."""
        lost, self.unsaved_seconds = self.unsaved_seconds, 0.0
        self.lost_seconds += lost
        return lost

    def seconds_beyond(self, tokens: float) -> float:
        """Device time spent on what lies beyond a token count."""
        if self.start_tokens is None or tokens <= self.start_tokens:
            return self.busy_seconds
        return max(self.busy_seconds - _interpolated(self._curve(), tokens), 0.0)

    def _curve(self) -> list[tuple[int, float]]:
        """Points in order of tokens, device time never falling."""
        curve: list[tuple[int, float]] = []
        highest = 0.0
        for tokens, seconds in sorted([(self.start_tokens or 0, 0.0), *self.points]):
            highest = max(highest, seconds)
            curve.append((tokens, highest))
        return curve


def epoch_times(events: Iterable[TrialEvent]) -> list[EpochTime]:
    """Device time of each epoch, in their order. The events of one trial, in any order."""
    by_epoch: dict[int, EpochTime] = {}
    safe_tokens = 0
    for event in events:
        one = by_epoch.setdefault(event.epoch, EpochTime(event.epoch))
        one.last_at = max(one.last_at, event.at)
        match event:
            case Started():
                one.start_tokens, one.begun_at = event.tokens, event.at
                one.usd_per_hour, one.price_source = event.usd_per_hour, event.price_source
            case Reported() | Finished():
                _take_in(one, event)
            case Checkpointed():
                safe_tokens = max(safe_tokens, event.tokens)
                if event.busy_seconds is not None:
                    one.points.append((event.tokens, event.busy_seconds))
                    one.busy_seconds = max(one.busy_seconds, event.busy_seconds)
            case Failed():
                one.failed, one.given_back = True, not event.final
            case Preempted():
                one.given_back = True
    times = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    _count_losses(times, safe_tokens)
    return [one for one in times if one.busy_seconds > 0 or one.start_tokens is not None]


def _take_in(one: EpochTime, event: Reported | Finished) -> None:
    one.points.append((event.tokens, event.busy_seconds))
    one.busy_seconds = max(one.busy_seconds, event.busy_seconds)
    one.lm_seconds = max(one.lm_seconds, event.lm_seconds)
    one.lm_alone_seconds = max(one.lm_alone_seconds, event.lm_alone_seconds)


def _count_losses(times: list[EpochTime], safe_tokens: int) -> None:
    """Backwards: the least that any later epoch went on from is what an epoch's work was good
    for."""
    redone_from = inf
    for one in reversed(times):
        if redone_from < inf:
            one.lost_seconds = one.seconds_beyond(redone_from)
        elif one.start_tokens is not None:
            beyond = one.seconds_beyond(safe_tokens)
            one.lost_seconds = beyond if one.given_back else 0.0
            one.unsaved_seconds = 0.0 if one.given_back else beyond
        if one.start_tokens is not None:
            redone_from = min(redone_from, one.start_tokens)


def _interpolated(curve: list[tuple[int, float]], tokens: float) -> float:
    """Device time at a token count, along straight lines; that of the ends beyond them."""
    right = bisect_right(curve, tokens, key=lambda point: point[0])
    if right == len(curve):
        return curve[-1][1]
    (low, before), (high, after) = curve[right - 1], curve[right]
    return before + (after - before) * (tokens - low) / (high - low)
