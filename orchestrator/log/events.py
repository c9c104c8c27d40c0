"""What can happen to a sweep and its trials, one class an event.

Every event carries its writer, the writer's running number and the wall clock (for people only:
nothing is ever ordered by it). An event about a trial carries the epoch of the lease it was
written under. One writer holds one epoch of one trial, so (epoch, seq) orders a trial's events
without any clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class EventBase(BaseModel):
    """Stamped by the log writer when the event is appended."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    writer: str = ""
    seq: int = 0
    at: float = 0.0
    """Wall clock of the writer, seconds since 1970."""


class TrialEvent(EventBase):
    trial: str
    epoch: int = 0
    """Lease number; 0 for what happens without a lease."""
    life: int = 0
    """How many times the trial had been retried, as far as its writer knew."""


class Submitted(EventBase):
    event: Literal["submitted"] = "submitted"
    spec_sha256: str
    by: str = ""


class DriverStarted(EventBase):
    event: Literal["driver_started"] = "driver_started"
    host: str
    pid: int
    num_nodes: int = 1
    num_cpus: float = 0
    num_gpus: float = 0
    slots: int = 0
    num_devices: float = 0
    """Devices on which `slots` were counted, also those that an autoscaler would still bring."""
    device: str = "cpu"
    usd_per_hour: float = 0.0
    """Price of everything this driver uses."""


class DriverEnded(EventBase):
    """Written by the driver itself, or by whoever saw its process dead."""

    event: Literal["driver_ended"] = "driver_ended"
    driver: str
    """Writer id of the driver; every lease it still holds is free from here on."""
    reason: str


class Closed(EventBase):
    """No further trial will be suggested, unless a later order says otherwise."""

    event: Literal["closed"] = "closed"
    reason: str
    by: str = ""
    """user@host who cancelled the sweep; empty when it closed by itself."""
    order: int = 0
    """The highest order that its writer knew of: one with a higher number may lift it."""


class ControlEvent(EventBase):
    """A person's order. Of two about the same thing the one with the higher `order` holds."""

    by: str
    """user@host."""
    order: int
    """1 + the highest order in the log when it was given: no clock decides."""


class Paused(ControlEvent):
    """What runs is checkpointed and let go, and nothing is begun until resumed."""

    event: Literal["paused"] = "paused"
    trial: str = ""
    """One trial; empty for the whole sweep."""
    keep_running: bool = False
    """What runs is let run to its end."""


class Resumed(ControlEvent):
    event: Literal["resumed"] = "resumed"
    trial: str = ""


class Prioritised(ControlEvent):
    event: Literal["prioritised"] = "prioritised"
    priority: int


class Extended(ControlEvent):
    """The sweep has more to do from here on; the queue's record holds the new spec."""

    event: Literal["extended"] = "extended"
    trials: int | None = None
    """Trials of its search, when they changed."""
    tokens: int | None = None
    """Length of each trial, when it changed."""
    usd: float | None = None
    """Budget in dollars, when it changed."""
    hours: float | None = None
    """Budget in hours, when it changed."""


class Reopened(ControlEvent):
    """What kept the sweep from going on is mended: whoever gave it up may try again at once."""

    event: Literal["reopened"] = "reopened"


class NeedsMet(EventBase):
    """The artefacts of other sweeps that this one takes exist; from here on they are fixed."""

    event: Literal["needs_met"] = "needs_met"
    artefacts: tuple[Mapping[str, Any], ...]
    """{"id", "kind", "sweep", "sha256"} of each."""


class BudgetWarned(EventBase):
    event: Literal["budget_warned"] = "budget_warned"
    reason: str


class Suggested(TrialEvent):
    event: Literal["suggested"] = "suggested"
    number: int
    config: Mapping[str, Any]
    total_tokens: int


class Leased(TrialEvent):
    event: Literal["leased"] = "leased"
    total_tokens: int | None = None
    """How far the trial goes under this lease: a sweep may have been extended since."""


class Started(TrialEvent):
    event: Literal["started"] = "started"
    node: str = ""
    """Address of the machine within its Ray cluster."""
    host: str = ""
    """The machine's name: what a quarantine is about."""
    node_id: str = ""
    """Ray's id of the node."""
    device: str = ""
    pack: str = ""
    pid: int = 0
    """Process of the pack."""
    tokens: int = 0
    """Where it goes on from: 0, or the tokens of its checkpoint."""
    usd_per_hour: float = 0.0
    """Of the device it runs on; 0: nobody knows."""
    price_source: str = ""
    """Where that price comes from, in words."""


class Reported(TrialEvent):
    event: Literal["reported"] = "reported"
    tokens: int
    metrics: Mapping[str, float | None]
    """None stands for a number that was not finite (JSON has no NaN)."""
    busy_seconds: float = 0.0
    """Device time of this epoch so far: own steps and an even share of the language model's."""
    lm_seconds: float = 0.0
    """Of that, the language model's."""
    lm_alone_seconds: float = 0.0
    """What the language model would have taken for this trial alone: not divided by neighbours."""
    rung: int | None = None
    """Set when this report stands at a rung: its token count."""
    stratum: str | None = None
    forecast: float | None = None
    """At a rung judged by trend: what the compared metric is on course for at the trial's end."""
    cutoff: float | None = None
    """The value (or forecast) that had to be reached there, if there was anyone to compare with."""
    at_place: Mapping[str, Any] = Field(default_factory=dict)


class Checkpointed(TrialEvent):
    event: Literal["checkpointed"] = "checkpointed"
    tokens: int
    busy_seconds: float | None = None
    """Device time of this epoch up to those tokens; None where it was not measured."""


class Stopped(TrialEvent):
    event: Literal["stopped"] = "stopped"
    rule: str
    rung: int | None
    metric: str
    value: float | None
    cutoff: float | None
    against: int
    """How many trials it was compared with."""
    on_course: bool = False
    """Whether value and cutoff are forecasts for the end of the training."""
    reason: str
    tokens: int


class Diverged(TrialEvent):
    event: Literal["diverged"] = "diverged"
    rule: str
    reason: str
    tokens: int


class Preempted(TrialEvent):
    event: Literal["preempted"] = "preempted"
    reason: str
    tokens: int
    """Tokens that are safe in a checkpoint."""
    process_died: bool = False
    """The trial's process went away by itself, as far as anyone saw."""
    host: str = ""
    """Where that was, if anyone there could say so."""
    device: str = ""


class Failed(TrialEvent):
    event: Literal["failed"] = "failed"
    reason: str
    traceback: str = ""
    final: bool
    """True when this was the last attempt the sweep allows."""
    out_of_memory: bool = False
    host: str = ""
    """Where that was."""
    device: str = ""


class Finished(TrialEvent):
    event: Literal["finished"] = "finished"
    artefact: str
    metrics: Mapping[str, float | None]
    tokens: int
    busy_seconds: float = 0.0
    lm_seconds: float = 0.0
    lm_alone_seconds: float = 0.0


class Cancelled(TrialEvent):
    event: Literal["cancelled"] = "cancelled"
    by: str = ""


class Retried(TrialEvent):
    """A failed trial gets another life, the one that `life` names."""

    event: Literal["retried"] = "retried"
    by: str = ""


Event = Annotated[
    Submitted
    | DriverStarted
    | DriverEnded
    | Closed
    | Paused
    | Resumed
    | Prioritised
    | Extended
    | Reopened
    | NeedsMet
    | BudgetWarned
    | Suggested
    | Leased
    | Started
    | Reported
    | Checkpointed
    | Stopped
    | Diverged
    | Preempted
    | Failed
    | Finished
    | Cancelled
    | Retried,
    Field(discriminator="event"),
]

AnyEvent = (
    Submitted
    | DriverStarted
    | DriverEnded
    | Closed
    | Paused
    | Resumed
    | Prioritised
    | Extended
    | Reopened
    | NeedsMet
    | BudgetWarned
    | Suggested
    | Leased
    | Started
    | Reported
    | Checkpointed
    | Stopped
    | Diverged
    | Preempted
    | Failed
    | Finished
    | Cancelled
    | Retried
)

_adapter: TypeAdapter[AnyEvent] = TypeAdapter(Event)


def parse_event(line: bytes) -> AnyEvent:
    """One line of a log segment. Raises pydantic's ValidationError for anything else."""
    return _adapter.validate_json(line)


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: NaN and infinities become None."""
    return {
        name: value if value == value and abs(value) != float("inf") else None
        for name, value in metrics.items()
    }
