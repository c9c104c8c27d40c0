"""What people asked of a sweep while it runs: which of their orders holds.

Of two orders about the same thing the one with the higher number holds. An order's number is one
more than the highest that its giver saw, so whoever answers an order outranks it whatever the
clocks say; only two who did not see each other are told apart by clock and name.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.log.events import (
    AnyEvent,
    Closed,
    ControlEvent,
    Extended,
    Paused,
    Prioritised,
    Reopened,
    Resumed,
)


def _rank(event: ControlEvent) -> tuple[int, float, str, int]:
    return (event.order, event.at, event.writer, event.seq)


def _said(event: Closed) -> tuple[float, str, int]:
    return (event.at, event.writer, event.seq)


class Controls:
    """Orders and closings of one sweep, in any order of arrival."""

    def __init__(self) -> None:
        self.max_order = 0
        """The highest number of any order; the next one gets one more."""
        self.extensions: list[Extended] = []
        """In their order."""
        self.reopened: Reopened | None = None
        """The last time somebody said that what was wrong is mended."""
        self._stance: dict[str, Paused | Resumed] = {}
        """Trial, or "" for the sweep -> the last that was said of it."""
        self._priority: Prioritised | None = None
        self._closings: list[Closed] = []

    def add(self, event: AnyEvent) -> None:
        """Take in an event; one that is no order changes nothing."""
        if isinstance(event, ControlEvent):
            self.max_order = max(self.max_order, event.order)
        match event:
            case Paused() | Resumed():
                known = self._stance.get(event.trial, event)
                self._stance[event.trial] = max(known, event, key=_rank)
            case Prioritised():
                self._priority = max(self._priority or event, event, key=_rank)
            case Extended():
                self.extensions = sorted([*self.extensions, event], key=_rank)
            case Reopened():
                self.reopened = max(self.reopened or event, event, key=_rank)
            case Closed():
                self._closings.append(event)

    @property
    def closed(self) -> Closed | None:
        """Why nothing further is suggested: a cancel, else the first closing not lifted since.

        An extension or a reopening lifts what closed by itself before: whoever closes for lack of
        money does so again if there still is none. A cancel is never lifted.
        """
        lifts = [*self.extensions, *([self.reopened] if self.reopened else [])]
        lifted_to = max((lift.order for lift in lifts), default=0)
        cancels = [closing for closing in self._closings if closing.by]
        standing = [closing for closing in self._closings if closing.order >= lifted_to]
        return min(cancels or standing, key=_said, default=None)

    @property
    def paused(self) -> Paused | None:
        """The order by which the whole sweep stands still."""
        stance = self._stance.get("")
        return stance if isinstance(stance, Paused) else None

    @property
    def paused_trials(self) -> Mapping[str, Paused]:
        """Trials that stand still by an order of their own."""
        return {
            trial: stance
            for trial in self._stance
            if trial and isinstance(stance := self.stance_of(trial), Paused) and stance.trial
        }

    def stance_of(self, trial: str) -> Paused | Resumed | None:
        """The last order about a trial, be it about the trial itself or about the whole sweep."""
        about = [self._stance[key] for key in ("", trial) if key in self._stance]
        return max(about, key=_rank, default=None)

    def pause_of(self, trial: str) -> Paused | None:
        """The order by which a trial stands still, if it does."""
        stance = self.stance_of(trial)
        return stance if isinstance(stance, Paused) else None

    @property
    def priority(self) -> int | None:
        """As last asked for; None when nobody asked."""
        return None if self._priority is None else self._priority.priority

    @property
    def num_trials(self) -> int | None:
        """Trials of the search, if it was ever extended: it only grows, so the most counts."""
        return max((e.trials for e in self.extensions if e.trials is not None), default=None)
