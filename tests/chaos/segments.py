"""The log of a sweep as it lies in the store, with what a reader would pass over in silence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from orchestrator.log.events import AnyEvent, parse_event
from orchestrator.store import Store

_ROLLED = re.compile(r"(?P<writer>.+-[0-9a-f]{10})-(?P<number>\d+)")
"""A writer that went on in another object after one that could not be written."""


@dataclass(frozen=True)
class Segment:
    """One object of the log."""

    key: str
    writer: str
    """Whom it belongs to, by its name."""
    number: int
    """1 for a writer's first object."""
    events: tuple[AnyEvent, ...] = ()
    bad_lines: tuple[bytes, ...] = ()
    """Whole lines that are no events."""
    torn: bytes = b""
    """A last line without an end: its writer died in the middle of it."""


def read_segments(store: Store, sweep: str) -> list[Segment]:
    """Every object of the log, each writer's in its order."""
    prefix = store.layout.log(sweep)
    keys = [entry.key for entry in store.backend.entries(prefix) if entry.key.endswith(".jsonl")]
    segments = [parse_segment(key, store.backend.get(key)) for key in keys]
    return sorted(segments, key=lambda segment: (segment.writer, segment.number))


def parse_segment(key: str, data: bytes) -> Segment:
    """One object from its bytes."""
    *lines, torn = data.split(b"\n")
    events: list[AnyEvent] = []
    bad: list[bytes] = []
    for line in lines:
        try:
            events.append(parse_event(line))
        except ValidationError:
            bad.append(line)
    writer, number = _owner(key)
    return Segment(key, writer, number, tuple(events), tuple(bad), torn)


def _owner(key: str) -> tuple[str, int]:
    stem = key.rpartition("/")[2].removesuffix(".jsonl")
    rolled = _ROLLED.fullmatch(stem)
    return (rolled["writer"], int(rolled["number"])) if rolled else (stem, 1)


def events_of(segments: Iterable[Segment]) -> Iterator[AnyEvent]:
    """All events, writer by writer."""
    for segment in segments:
        yield from segment.events


@dataclass(frozen=True)
class Broken:
    """One promise of a sweep that does not hold."""

    rule: str
    where: str
    """A trial, a key or a writer."""
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.detail}"


@dataclass
class Damage:
    """What was done to the store on purpose: it excuses what it alone explains."""

    cut_segments: set[str] = field(default_factory=set)
    """Keys of log objects whose last line was torn."""
    cut_checkpoints: list[tuple[str, float]] = field(default_factory=list)
    """(trial, wall clock) of each newest checkpoint that was truncated."""
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """(first, last) wall clock between which a driver was stopped and could not be heard."""
    may_lose_events: bool = False
    """The store refused writes: an event that could not be written leaves a hole in a sequence."""
