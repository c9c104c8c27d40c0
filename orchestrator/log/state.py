"""Events -> state: a pure function, the same for every interleaving of the writers.

A trial's events are ordered by (life, epoch, seq): an epoch belongs to one writer, so no clock is
needed. The first end of a life is its end; a cancellation, which needs no lease, comes last in
it. So the state is a function of the set of events, and a trial that ended never un-ends when more
of them are read, but by a retry of a failed one, which begins its next life. That a life also
keeps the same end is promised by the store, where it is created exclusively before it is logged.

What a writer says about a trial that was taken from it changes neither status, lease nor place,
unless it is that one end; its reports and checkpoints up to where the next holder went on from
stand, and its device time is paid for all the same.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from orchestrator.log.controls import Controls
from orchestrator.log.device_time import EpochTime, epoch_times
from orchestrator.log.events import (
    AnyEvent,
    BudgetWarned,
    Cancelled,
    Checkpointed,
    Closed,
    ControlEvent,
    Diverged,
    DriverEnded,
    DriverStarted,
    Failed,
    Finished,
    Leased,
    NeedsMet,
    Preempted,
    Reported,
    Retried,
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
    life: int = 0
    """How many times it was retried after it had failed for good."""
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
    leased_at: float = 0.0
    """When its lease was taken, by its holder's clock."""
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
    epoch_times: list[EpochTime] = field(default_factory=list)
    """Device time, price and losses of each lease."""
    busy_seconds: float = 0.0
    """Device time over all epochs."""
    lm_seconds: float = 0.0
    """Of that, the language model's."""
    lm_alone_seconds: float = 0.0
    """What the language model would have taken for this trial alone."""
    wasted_seconds: float = 0.0
    """Of `busy_seconds`: lost by preemptions and lost leases, so that it was done again."""
    usd: float = 0.0
    last_event_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.status in ENDS


def fold_trial(trial_id: str, events: Iterable[TrialEvent]) -> TrialState:
    """State of one trial. The events may come in any order."""
    state = TrialState(trial_id)
    events = sorted(events, key=_order)
    for event in events:
        state.last_event_at = max(state.last_event_at, event.at)
        if isinstance(event, Suggested):
            if state.number < 0:
                state.number, state.config = event.number, event.config
                state.total_tokens = event.total_tokens
            continue
        if event.life > state.life and (not state.ended or state.status == "failed"):
            _begin_life(state, event)
        if not state.ended:
            _apply(state, event)
        elif isinstance(event, Leased):  # by who had not heard of the end; the number is used up
            state.epoch, state.holder = max((state.epoch, state.holder), _lease_of(event))
    _add_up_device_time(state, events)
    return state


def _add_up_device_time(state: TrialState, events: Iterable[TrialEvent]) -> None:
    times = state.epoch_times = epoch_times(events)
    state.busy_seconds = sum(one.busy_seconds for one in times)
    state.lm_seconds = sum(one.lm_seconds for one in times)
    state.lm_alone_seconds = sum(one.lm_alone_seconds for one in times)
    state.wasted_seconds = sum(one.lost_seconds for one in times if not one.failed)
    state.usd = sum(one.usd for one in times)


def _order(event: TrialEvent) -> tuple[int, float, int, str]:
    without_lease = isinstance(event, Cancelled) and event.epoch == 0
    place = inf if without_lease else -1 if isinstance(event, Retried) else event.epoch
    return (event.life, place, event.seq, event.writer)


def _lease_of(event: Leased) -> tuple[int, str]:
    return (event.epoch, event.writer)


def _begin_life(state: TrialState, event: TrialEvent) -> None:
    """A retry was asked for: by its own event, or seen from what was done by it."""
    state.life, state.status, state.ended_at = event.life, "queued", None
    state.num_failures = state.num_out_of_memory = 0
    state.died_at_tokens = []
    state.reason = state.traceback = ""


def _apply(state: TrialState, event: TrialEvent) -> None:
    match event:
        case Leased():
            if state.status == "running":  # taken over from a driver that went silent
                state.num_preemptions += 1
            state.status, state.epoch, state.holder = "running", event.epoch, event.writer
            state.leased_at = event.at
            state.total_tokens = event.total_tokens or state.total_tokens
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
        case Retried():
            state.reason = f"retried by {event.by}" if event.by else "retried"


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
    last_at: float = 0.0
    """When it last wrote anything, by its own clock."""


class SweepState:
    """A whole sweep, folded incrementally: only trials that got new events are folded again."""

    def __init__(self) -> None:
        self.trials: dict[str, TrialState] = {}
        self.drivers: dict[str, DriverState] = {}
        self.submitted: Submitted | None = None
        self.controls = Controls()
        """What people asked of the sweep, and what closed it."""
        self.needs_met: NeedsMet | None = None
        """The artefacts of other sweeps that this one takes, once they are fixed."""
        self.budget_warned: BudgetWarned | None = None
        self.recent: list[AnyEvent] = []
        """The last events that a person wants to see, oldest first (by the writers' clocks)."""
        self._events: dict[str, list[TrialEvent]] = {}
        self._ended_drivers: dict[str, DriverEnded] = {}
        self._last_at: dict[str, float] = {}
        """When each writer last wrote."""
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
            self._note_writer(event)
        if drivers:
            touched.update(trial.id for trial in self.trials.values() if trial.holder in drivers)
        for trial_id in touched:
            self.trials[trial_id] = self._settle(fold_trial(trial_id, self._events[trial_id]))

    def _note_writer(self, event: AnyEvent) -> None:
        last = self._last_at[event.writer] = max(self._last_at.get(event.writer, 0.0), event.at)
        if event.writer in self.drivers:
            self.drivers[event.writer].last_at = last

    def _add_sweep_event(self, event: AnyEvent) -> None:
        match event:
            case Submitted():
                self.submitted = min(self.submitted or event, event, key=_said)
            case Closed() | ControlEvent():
                self.controls.add(event)
            case NeedsMet():
                self.needs_met = min(self.needs_met or event, event, key=_said)
            case BudgetWarned():
                self.budget_warned = min(self.budget_warned or event, event, key=_said)
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
            if state.epoch_times:
                state.wasted_seconds += state.epoch_times[-1].lose_unsaved()
        return state

    def _remember(self, event: AnyEvent, keep: int = 50) -> None:
        if not isinstance(event, Reported | Checkpointed | Leased | Suggested):
            insort(self.recent, event, key=_said)
            del self.recent[:-keep]

    @property
    def closed(self) -> Closed | None:
        """Why no further trial will be suggested, if none will."""
        return self.controls.closed

    @property
    def cancelled_by(self) -> str:
        """user@host who cancelled the sweep; empty when nobody has."""
        return self.closed.by if self.closed is not None else ""

    @property
    def priority(self) -> int | None:
        """As last asked for; None for what was given when it was submitted."""
        return self.controls.priority

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

    def events_of(self, trial: str) -> Sequence[TrialEvent]:
        """All that was said about one trial, in no order."""
        return self._events.get(trial, ())

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
