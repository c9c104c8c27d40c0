"""What a legal log looks like: whole events, growing numbers, epochs held by exclusive leases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from orchestrator.log.events import Retried, TrialEvent
from orchestrator.store import KeyMissing, Store
from tests.chaos.segments import Broken, Damage, Segment, events_of


def log_faults(store: Store, sweep: str, segments: list[Segment], damage: Damage) -> list[Broken]:
    """Everything in which a log is not legal."""
    return [
        *_segment_faults(segments),
        *_sequence_faults(segments, damage),
        *_lease_faults(segments, holders(store, sweep)),
    ]


def holders(store: Store, sweep: str) -> dict[str, dict[int, str]]:
    """Trial -> epoch -> whose lease object it is."""
    found: dict[str, dict[int, str]] = {}
    for trial in trial_names(store, sweep):
        epoch = 1
        while True:
            try:
                lease = store.read_json(store.layout.lease(sweep, trial, epoch))
            except KeyMissing:
                break
            found.setdefault(trial, {})[epoch] = str(lease["holder"])
            epoch += 1
    return found


def trial_names(store: Store, sweep: str) -> list[str]:
    """Every trial that anybody has claimed, leased or ended."""
    return store.backend.children(f"{store.layout.sweep(sweep)}trials/")


def lost_events(segments: Iterable[Segment]) -> int:
    """Events that were numbered and are not there: holes in the sequences, and torn lines."""
    segments = list(segments)
    return sum(missing for _, missing in _holes(segments)) + sum(bool(s.torn) for s in segments)


def _segment_faults(segments: list[Segment]) -> Iterator[Broken]:
    for segment in segments:
        for line in segment.bad_lines:
            yield Broken("a whole line of the log is an event", segment.key, repr(line[:80]))
        for name in sorted({e.writer for e in segment.events} - {segment.writer}):
            yield Broken("a log object has one writer", segment.key, f"{name!r} wrote in it")


def _sequence_faults(segments: list[Segment], damage: Damage) -> Iterator[Broken]:
    for writer, own in groupby(segments, key=lambda segment: segment.writer):
        last = 0
        for event in events_of(own):
            if event.seq <= last:
                detail = f"{event.seq} after {last} ({event.event})"
                yield Broken("a writer's numbers grow", writer, detail)
            last = max(last, event.seq)
    if not damage.may_lose_events:
        cut = {s.writer for s in segments if s.key in damage.cut_segments or s.torn}
        for writer, missing in _holes(segments):
            if writer not in cut:
                yield Broken("no event is lost", writer, f"{missing} missing in its sequence")


def _holes(segments: Iterable[Segment]) -> Iterator[tuple[str, int]]:
    for writer, own in groupby(segments, key=lambda segment: segment.writer):
        numbers = {event.seq for event in events_of(own)}
        missing = max(numbers, default=0) - len(numbers)
        if missing > 0:
            yield writer, missing


def _lease_faults(
    segments: list[Segment], holder_of: Mapping[str, Mapping[int, str]]
) -> Iterator[Broken]:
    rule = "an epoch is taken by its exclusive lease"
    told: set[tuple[str, int, str]] = set()
    for event in events_of(segments):
        if not isinstance(event, TrialEvent) or event.epoch == 0 or isinstance(event, Retried):
            continue
        holder = holder_of.get(event.trial, {}).get(event.epoch)
        about = (event.trial, event.epoch, event.writer)
        if holder != event.writer and about not in told:
            told.add(about)
            whose = f"its lease is {holder}'s" if holder else "there is no lease"
            detail = f"{event.writer} wrote {event.event!r} under epoch {event.epoch}; {whose}"
            yield Broken(rule, event.trial, detail)
