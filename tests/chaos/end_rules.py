"""Every trial ends once, in the store as in the log, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Leased,
    Suggested,
    TrialEvent,
    parse_event,
)
from orchestrator.log.state import SweepState
from orchestrator.queue import QueuedSweep
from orchestrator.store import KeyMissing, Store
from tests.chaos.log_rules import trial_names
from tests.chaos.segments import Broken
from tests.chaos.stories import Story, is_end, said

NOTHING_AFTER = "nothing happens to a trial after its end"
ONE_END = "a trial has exactly one end"


def end_faults(
    store: Store, queued: QueuedSweep, state: SweepState, stories: Mapping[str, Story]
) -> list[Broken]:
    """Everything in which the ends of a sweep's trials are not as promised."""
    return [
        *_missing_trials(queued, state),
        *(fault for story in stories.values() for fault in _life_faults(store, queued.id, story)),
        *_status_faults(state),
        *_leftovers(store, queued.id, state),
    ]


def config_faults(
    store: Store, queued: QueuedSweep, stories: Mapping[str, Story]
) -> Iterator[Broken]:
    """Numbers and configurations: one a trial, as claimed, and none drawn twice from a grid."""
    by_config: dict[str, str] = {}
    by_number: dict[int, str] = {}
    for trial in trial_names(store, queued.id):
        try:
            claim = store.read_json(store.layout.claim(queued.id, trial))
        except KeyMissing:
            yield Broken("a trial is claimed before it is begun", trial, "it has no claim")
            continue
        number, config = claim["number"], json.dumps(claim["config"], sort_keys=True)
        for other in {by_number.setdefault(number, trial)} - {trial}:
            yield Broken("a number is one trial's", trial, f"{other} has number {number} too")
        if queued.spec.search.sampler in ("grid", "list"):
            for other in {by_config.setdefault(config, trial)} - {trial}:
                yield Broken("a configuration is tried once", trial, f"{other} has {config} too")
        for event in stories[trial].events if trial in stories else ():
            if isinstance(event, Suggested) and (event.number, dict(event.config)) != (
                number,
                claim["config"],
            ):
                detail = f"the log says {dict(event.config)}, its claim {config}"
                yield Broken("the log has the configuration that was claimed", trial, detail)


def driver_faults(state: SweepState) -> Iterator[Broken]:
    """No process that could still write is left: no lease is held by anything alive."""
    for trial in state.trials.values():
        if trial.status == "running":
            detail = f"epoch {trial.epoch} of {trial.holder} has not ended"
            yield Broken("no lease is held when a sweep is over", trial.id, detail)
    for driver in state.drivers.values():
        if is_driver_alive(driver.started.pid, driver.id):
            yield Broken("no driver is left", driver.id, f"pid {driver.started.pid} is alive")


def is_driver_alive(pid: int, writer: str) -> bool:
    """Whether that process of this machine is still that driver."""
    try:
        return writer.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _missing_trials(queued: QueuedSweep, state: SweepState) -> Iterator[Broken]:
    asked, there = queued.spec.trials, len(state.trials)
    if state.closed is None and there != asked:
        yield Broken("every trial of a sweep is run", queued.id, f"{there} of {asked} trials")


def _life_faults(store: Store, sweep: str, story: Story) -> Iterator[Broken]:
    for life, events in enumerate(story.lives):
        ends = [event for event in events if is_end(event)]
        stands = None
        try:
            stands = parse_event(store.backend.get(store.layout.end(sweep, story.trial, life)))
        except KeyMissing:
            yield Broken(ONE_END, story.trial, f"no end object in life {life}")
        except ValidationError as error:
            yield Broken(ONE_END, story.trial, f"its end object is no event: {error}")
        if not ends:
            yield Broken(ONE_END, story.trial, f"the log says no end of life {life}")
            continue
        for event in ends:
            yield from _other_end(story.trial, event, stands or ends[0])
        yield from _late_events(story.trial, events, ends[0])


def _other_end(trial: str, event: AnyEvent, stands: AnyEvent) -> Iterator[Broken]:
    here, there = said(event), said(stands)
    if here != there:
        names = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
        pairs = "; ".join(f"{n} {here.get(n)}, not {there.get(n)}" for n in names)
        yield Broken(ONE_END, trial, f"{event.writer} says under epoch {_epoch(event)}: {pairs}")


def _epoch(event: AnyEvent) -> int:
    return event.epoch if isinstance(event, TrialEvent) else 0


def _late_events(trial: str, events: tuple[AnyEvent, ...], end: AnyEvent) -> Iterator[Broken]:
    if isinstance(end, Cancelled):  # needs no lease: what runs may go on for seconds
        return
    for event in events[events.index(end) + 1 :]:
        if not (isinstance(event, Leased) or is_end(event)):
            detail = f"{event.writer} wrote {event.event!r} ({event.seq}) after {end.event!r}"
            yield Broken(NOTHING_AFTER, trial, detail)


def _status_faults(state: SweepState) -> Iterator[Broken]:
    for trial in state.trials.values():
        if not trial.ended:
            yield Broken(ONE_END, trial.id, f"it is {trial.status}")


def _leftovers(store: Store, sweep: str, state: SweepState) -> Iterator[Broken]:
    """Checkpoints of ended trials; a failed one keeps its own, since it may be retried."""
    for trial in trial_names(store, sweep):
        known = state.trials.get(trial)
        if known is None or not known.ended or known.status == "failed":
            continue
        left = [
            entry.key for entry in store.backend.entries(store.layout.checkpoints(sweep, trial))
        ]
        if left:
            detail = f"{len(left)} objects, such as {left[0]}"
            yield Broken("an ended trial has no checkpoints", trial, detail)
