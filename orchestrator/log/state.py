"""Events -> state: a pure function, the same for every interleaving of the writers.

A trial's events are ordered by (epoch, seq): an epoch belongs to one writer, so no clock is
needed. The first end in that order is the trial's end; a cancellation, which needs no lease, comes
last in it. So the state is a function of the set of events, and a trial that ended never un-ends
when more of them are read. That it also keeps the same end is promised by the store, where the end
of a trial is created exclusively before it is logged.

What a writer says about a trial that was taken from it changes neither status, lease nor place,
unless it is that one end; its reports and checkpoints up to where the next holder went on from
stand, and its device time is paid for all the same.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Checkpointed,
    Closed,
    Diverged,
    DriverEnded,
    DriverStarted,
    Failed,
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Submitted,
    Suggested,
    TrialEvent,
)

TrialStatus = Literal["queued", "running", "stopped", "diverged", "failed", "finished", "cancelled"]
ENDS: frozenset[str] = frozenset({"stopped", "diverged", "failed", "finished", "cancelled"})


@dataclass
class TrialState:
    """One trial as the log tells it."""

    id: str
    number: int = -1
    config: Mapping[str, Any] = field(default_factory=dict)
    total_tokens: int = 0
    status: TrialStatus = "queued"
    epoch: int = 0
    holder: str = ""
    """Writer id of the driver that holds (or last held) the lease."""
    tokens: int = 0
    checkpoint_tokens: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    history: list[tuple[int, Mapping[str, float | None]]] = field(default_factory=list)
    """(tokens, metrics) of every report that stands, in order of tokens."""
    rungs: dict[int, Reported] = field(default_factory=dict)
    """Token count of the rung -> the first report made there."""
    started: Started | None = None
    at_place: Mapping[str, Any] = field(default_factory=dict)
    last_report_at: float = 0.0
    first_started_at: float | None = None
    ended_at: float | None = None
    stop: Stopped | None = None
    reason: str = ""
    """Why it waits or how it ended, in words."""
    traceback: str = ""
    num_failures: int = 0
    num_out_of_memory: int = 0
    num_preemptions: int = 0
    died_at_tokens: list[int] = field(default_factory=list)
    """Safe tokens at each death of its process: many equal ones in a row mean no progress."""
    artefact: str | None = None
    busy_seconds: float = 0.0
    """Device time over all epochs."""
    usd: float = 0.0
    last_event_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.status in ENDS


def fold_trial(trial_id: str, events: Iterable[TrialEvent]) -> TrialState:
    """State of one trial. The events may come in any order."""
    state = TrialState(trial_id)
    busy_by_epoch: dict[int, float] = {}
    price_by_epoch: dict[int, float] = {}
    for event in sorted(events, key=_order):
        state.last_event_at = max(state.last_event_at, event.at)
        if isinstance(event, Suggested):
            if state.number < 0:
                state.number, state.config = event.number, event.config
                state.total_tokens = event.total_tokens
        elif not state.ended:
            _apply(state, event)
        if isinstance(event, Started):
            price_by_epoch[event.epoch] = event.usd_per_hour
        if isinstance(event, Reported | Finished):
            busy = max(busy_by_epoch.get(event.epoch, 0.0), event.busy_seconds)
            busy_by_epoch[event.epoch] = busy
    state.busy_seconds = sum(busy_by_epoch.values())
    state.usd = sum(s * price_by_epoch.get(e, 0.0) / 3600 for e, s in busy_by_epoch.items())
    return state


def _order(event: TrialEvent) -> tuple[float, int, str]:
    without_lease = isinstance(event, Cancelled) and event.epoch == 0
    return (inf if without_lease else event.epoch, event.seq, event.writer)


def _apply(state: TrialState, event: TrialEvent) -> None:
    match event:
        case Leased():
            if state.status == "running":  # taken over from a driver that went silent
                state.num_preemptions += 1
            state.status, state.epoch, state.holder = "running", event.epoch, event.writer
            state.reason = ""
        case Started():
            state.started, state.tokens = event, event.tokens
            state.history = [h for h in state.history if h[0] <= event.tokens]
            if state.first_started_at is None:
                state.first_started_at = event.at
        case Reported():
            _apply_report(state, event)
        case Checkpointed():
            state.checkpoint_tokens = max(state.checkpoint_tokens, event.tokens)
        case Preempted():
            state.status, state.reason = "queued", event.reason
            state.num_preemptions += 1
            if event.process_died:
                state.died_at_tokens.append(event.tokens)
        case Failed():
            state.num_failures += 1
            state.num_out_of_memory += event.out_of_memory
            state.reason, state.traceback = event.reason, event.traceback
            if event.final:
                _end(state, "failed", event)
            else:
                state.status = "queued"
        case Stopped():
            state.stop, state.reason, state.tokens = event, event.reason, event.tokens
            _end(state, "stopped", event)
        case Diverged():
            state.reason, state.tokens = event.reason, event.tokens
            _end(state, "diverged", event)
        case Finished():
            state.artefact, state.metrics, state.tokens = (
                event.artefact,
                {**state.metrics, **event.metrics},
                event.tokens,
            )
            _end(state, "finished", event)
        case Cancelled():
            state.reason = f"cancelled by {event.by}" if event.by else "cancelled"
            _end(state, "cancelled", event)


def _apply_report(state: TrialState, event: Reported) -> None:
    state.tokens, state.metrics = event.tokens, event.metrics
    state.at_place, state.last_report_at = event.at_place, event.at
    state.history.append((event.tokens, event.metrics))
    if event.rung is not None:
        state.rungs.setdefault(event.rung, event)


def _end(state: TrialState, status: TrialStatus, event: TrialEvent) -> None:
    state.status, state.ended_at = status, event.at


def _said(event: AnyEvent) -> tuple[float, str, int]:
    """Order for people, by the writers' clocks; the same whatever was read first."""
    return (event.at, event.writer, event.seq)


@dataclass
class DriverState:
    """One driver process as the log tells it."""

    id: str
    started: DriverStarted
    ended: DriverEnded | None = None


class SweepState:
    """A whole sweep, folded incrementally: only trials that got new events are folded again."""

    def __init__(self) -> None:
        self.trials: dict[str, TrialState] = {}
        self.drivers: dict[str, DriverState] = {}
        self.submitted: Submitted | None = None
        self.closed: Closed | None = None
        self.recent: list[AnyEvent] = []
        """The last events that a person wants to see, oldest first (by the writers' clocks)."""
        self._events: dict[str, list[TrialEvent]] = {}
        self._ended_drivers: dict[str, DriverEnded] = {}
        self._seen: set[tuple[str, int]] = set()

    def add(self, events: Iterable[AnyEvent]) -> None:
        """Take in events in any order; one that was seen already is ignored."""
        touched: set[str] = set()
        drivers: set[str] = set()
        for event in events:
            if (event.writer, event.seq) in self._seen:
                continue
            self._seen.add((event.writer, event.seq))
            if isinstance(event, TrialEvent):
                self._events.setdefault(event.trial, []).append(event)
                touched.add(event.trial)
            else:
                self._add_sweep_event(event)
                if isinstance(event, DriverEnded):
                    drivers.add(event.driver)
            self._remember(event)
        if drivers:
            touched.update(trial.id for trial in self.trials.values() if trial.holder in drivers)
        for trial_id in touched:
            self.trials[trial_id] = self._settle(fold_trial(trial_id, self._events[trial_id]))

    def _add_sweep_event(self, event: AnyEvent) -> None:
        match event:
            case Submitted():
                self.submitted = min(self.submitted or event, event, key=_said)
            case Closed():
                self.closed = min(self.closed or event, event, key=_said)
            case DriverStarted():
                ended = self._ended_drivers.get(event.writer)
                self.drivers[event.writer] = DriverState(event.writer, event, ended)
            case DriverEnded():
                known = self._ended_drivers.get(event.driver, event)
                self._ended_drivers[event.driver] = first = min(known, event, key=_said)
                if event.driver in self.drivers:
                    self.drivers[event.driver].ended = first

    def _settle(self, state: TrialState) -> TrialState:
        """A trial whose driver is known to be gone waits for the next one."""
        if state.status == "running" and state.holder in self._ended_drivers:
            state.status = "queued"
            state.num_preemptions += 1
            state.reason = f"its driver ended: {self._ended_drivers[state.holder].reason}"
        return state

    def _remember(self, event: AnyEvent, keep: int = 50) -> None:
        if not isinstance(event, Reported | Checkpointed | Leased | Suggested):
            insort(self.recent, event, key=_said)
            del self.recent[:-keep]

    @property
    def counts(self) -> Counter[str]:
        """Number of trials in each status."""
        return Counter(trial.status for trial in self.trials.values())

    @property
    def ended_drivers(self) -> Mapping[str, DriverEnded]:
        """How drivers ended, also those that ended before they had started to work."""
        return self._ended_drivers

    def by_number(self) -> list[TrialState]:
        """Trials in the order of their numbers."""
        return sorted(self.trials.values(), key=lambda t: (t.number, t.id))

    def rung(self, rung: int, stratum: str) -> dict[str, Reported]:
        """Reports made at one rung of one stratum, by trial."""
        return {
            trial.id: trial.rungs[rung]
            for trial in self.trials.values()
            if rung in trial.rungs and trial.rungs[rung].stratum == stratum
        }


def fold(events: Iterable[AnyEvent]) -> SweepState:
    """The state that a set of events stands for."""
    state = SweepState()
    state.add(events)
    return state
