"""Judges what is left in a store when the storm is over: every promise of a sweep, one by one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.log.state import fold
from orchestrator.queue import Queue
from orchestrator.store import Store
from tests.chaos.artefact_rules import artefact_faults
from tests.chaos.end_rules import config_faults, driver_faults, end_faults
from tests.chaos.log_rules import log_faults, lost_events
from tests.chaos.lost_work import Resume, lost_work_faults, resumes_of
from tests.chaos.segments import Broken, Damage, events_of, read_segments
from tests.chaos.stories import stories_of

UPLOAD_SLACK_S = 10.0
"""Beyond the checkpoint interval: the step it waits for, the upload, and a busy machine."""


@dataclass(frozen=True)
class Verdict:
    """What was found in one sweep."""

    sweep: str
    broken: tuple[Broken, ...]
    counts: dict[str, int]
    """Trials in each status."""
    resumes: tuple[Resume, ...]
    num_lost_events: int
    """Numbered by a writer and not in the log: torn lines and refused writes."""

    @property
    def holds(self) -> bool:
        return not self.broken

    @property
    def lost_device_seconds(self) -> float:
        return sum(resume.lost_device_seconds for resume in self.resumes)

    @property
    def lost_seconds(self) -> float:
        return sum(resume.lost_seconds for resume in self.resumes)

    def __str__(self) -> str:
        ends = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items()))
        lines = [
            f"{self.sweep}: {ends}; {len(self.resumes)} resumes, {self.lost_seconds:.1f} s of "
            f"training lost ({self.lost_device_seconds:.1f} device seconds); "
            f"{_at_most(self.resumes)}; {self.num_lost_events} events lost"
        ]
        lines += [f"  BROKEN  {broken}" for broken in self.broken]
        return "\n".join(lines)


def judge(
    store: Store,
    sweep: str,
    damage: Damage | None = None,
    *,
    slack_s: float = UPLOAD_SLACK_S,
    load_weights: bool = True,
) -> Verdict:
    """Read a sweep that is over, from its store alone.

    Args:
        damage: what was done to the store on purpose.
        slack_s: how much more than one checkpoint interval a kill may cost, in seconds.
        load_weights: also load every finished SAE with sae_lens.
    """
    damage = damage or Damage()
    queued = Queue(store).get(sweep)
    segments = read_segments(store, sweep)
    state, stories = fold(events_of(segments)), stories_of(events_of(segments))
    resumes = tuple(r for story in stories.values() for r in resumes_of(story, damage))
    interval_s = queued.spec.checkpoint.seconds
    broken = [
        *log_faults(store, sweep, segments, damage),
        *end_faults(store, queued, state, stories),
        *config_faults(store, queued, stories),
        *driver_faults(state),
        *artefact_faults(store, queued, state, load_weights=load_weights),
        *lost_work_faults(resumes, interval_s=interval_s, slack_s=slack_s),
    ]
    return Verdict(sweep, tuple(broken), dict(state.counts), resumes, lost_events(segments))


def _at_most(resumes: Sequence[Resume]) -> str:
    if not resumes:
        return "nothing was taken up again"
    away = statistics.median(resume.away_seconds for resume in resumes)
    worst = max(resume.lost_seconds for resume in resumes)
    return f"at most {worst:.1f} s at once, running again after {away:.1f} s (median)"
