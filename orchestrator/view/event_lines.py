"""Events as sentences for people."""

from __future__ import annotations

import time
from dataclasses import dataclass

from orchestrator.log.events import (
    AnyEvent,
    BudgetWarned,
    Cancelled,
    Closed,
    ControlEvent,
    Diverged,
    DriverEnded,
    DriverStarted,
    Extended,
    Failed,
    Finished,
    NeedsMet,
    Paused,
    Preempted,
    Prioritised,
    Reopened,
    Resumed,
    Retried,
    Started,
    Stopped,
    Submitted,
    TrialEvent,
)
from orchestrator.view import cells


@dataclass(frozen=True)
class EventLine:
    """One event, ready to be drawn."""

    at: float
    what: str
    """One word: `stopped`, `finished`, `driver`, ..."""
    trial: str
    text: str
    sweep: str = ""

    @property
    def clock(self) -> str:
        """Local time of day."""
        return clock_time(self.at)


def clock_time(at: float) -> str:
    """Local time of day; a dash for a time that no clock shows."""
    return _strftime("%H:%M:%S", at)


def day_time(at: float) -> str:
    """Local date and time of day."""
    return _strftime("%Y-%m-%d %H:%M:%S", at)


def _strftime(form: str, at: float) -> str:
    try:
        return time.strftime(form, time.localtime(at)) if at > 0 else cells.UNKNOWN
    except (OverflowError, OSError, ValueError):
        return cells.UNKNOWN


def event_line(event: AnyEvent, sweep: str = "") -> EventLine | None:
    """Word an event; None for one that no person wants to read."""
    words = _words(event)
    if words is None:
        return None
    what, text = words
    trial = event.trial if isinstance(event, TrialEvent) else ""
    return EventLine(event.at, what, cells.one_line(trial), cells.one_line(text), sweep)


def _words(event: AnyEvent) -> tuple[str, str] | None:
    match event:
        case Stopped():
            return "stopped", _stopped(event)
        case Diverged():
            rule = "" if event.rule in event.reason else f" ({event.rule})"
            return "diverged", event.reason + rule
        case Preempted():
            return "preempted", f"{event.reason}; {cells.tokens(event.tokens)} tokens are safe"
        case Failed():
            again = "the last attempt" if event.final else "it will be tried again"
            return "failed", f"{event.reason}; {again}"
        case Finished():
            return "finished", _finished(event)
        case Cancelled():
            return "cancelled", f"by {event.by}" if event.by else "cancelled"
        case Started():
            return ("resumed" if event.tokens > 0 else "started"), _started(event)
        case Submitted() | DriverStarted() | DriverEnded() | Closed():
            return _sweep_words(event)
        case BudgetWarned():
            return "budget", event.reason
        case Retried():
            return "retried", f"by {event.by}" if event.by else "retried"
        case ControlEvent():
            return _order_words(event)
        case NeedsMet():
            return "needs", _needs_words(event)
        case _:
            return None


def _sweep_words(event: Submitted | DriverStarted | DriverEnded | Closed) -> tuple[str, str]:
    match event:
        case Submitted():
            return "submitted", f"by {event.by}" if event.by else "submitted"
        case DriverStarted():
            device = f"{event.num_gpus:g} GPU" if event.num_gpus else f"{event.num_cpus:g} cores"
            up = event.num_gpus if event.device == "cuda" else event.num_nodes
            if event.num_devices > up:
                what = "GPU" if event.device == "cuda" else "machines"
                device = f"up to {event.num_devices:g} {what}, {up:g} there now"
            return "driver", f"started on {event.host}: {event.slots} slots, {device}"
        case DriverEnded():
            return "driver", f"{event.driver} ended: {event.reason}"
        case Closed():
            return "closed", f"no further trials: {event.reason}"


def _order_words(event: ControlEvent) -> tuple[str, str] | None:
    match event:
        case Paused():
            how = "what runs goes on to its end" if event.keep_running else "what runs is let go"
            return "paused", f"{event.trial or 'the sweep'} by {event.by}; {how}"
        case Resumed():
            return "resumed", f"{event.trial or 'the sweep'} by {event.by}"
        case Prioritised():
            return "priority", f"{event.priority} by {event.by}"
        case Extended():
            return "extended", f"to {_extended_to(event)} by {event.by}"
        case Reopened():
            return "reopened", f"by {event.by}"
        case _:
            return None


def _extended_to(event: Extended) -> str:
    parts = [
        *([f"{event.trials} trials"] if event.trials is not None else []),
        *([f"{cells.tokens(event.tokens)} tokens"] if event.tokens is not None else []),
        *([cells.usd(event.usd)] if event.usd is not None else []),
        *([f"{event.hours:g} h"] if event.hours is not None else []),
    ]
    return " and ".join(parts)


def _needs_words(event: NeedsMet) -> str:
    ids = [str(one.get("id", "")) for one in event.artefacts]
    more = f", ... ({len(ids)} in all)" if len(ids) > 3 else ""
    return f"takes {', '.join(ids[:3])}{more}"


def _stopped(event: Stopped) -> str:
    """Value and cutoff; the rule's own words follow, since they may say more."""
    place = f"at {cells.tokens(event.tokens if event.rung is None else event.rung)}"
    heading = "on course for " if event.on_course else ""
    value = f"{event.metric} {heading}{cells.number(event.value)} {place}"
    if event.cutoff is None:
        return f"{value}: {event.reason} ({event.rule})"
    cutoff = f"cutoff {cells.number(event.cutoff)} against {event.against}"
    return f"{value}, {cutoff} ({event.rule})"


def _finished(event: Finished) -> str:
    shown = [
        f"{name} {cells.number(event.metrics[name])}"
        for name in ("fvu", "l0", "ce_recovered")
        if name in event.metrics
    ]
    return ", ".join(shown) + (" -> " if shown else "") + event.artefact


def _started(event: Started) -> str:
    place = "/".join(part for part in (event.node, event.device) if part) or "somewhere"
    come_back = f", from {cells.tokens(event.tokens)} tokens on" if event.tokens > 0 else ""
    return f"on {place}{come_back}"
