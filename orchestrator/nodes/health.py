"""How a node is: from its record, the time, and whether work waits for nodes. Nothing is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.nodes.records import Failure, NodeRecord
from orchestrator.nodes.stages import STAGES, WITHIN_S, WORDS, Mark, Stage, standing

NodeState = Literal[
    "working", "ready", "draining", "starting", "waiting", "failed", "silent", "ended"
]
NOT_REACHED: Mapping[Stage, str] = {
    "asked": "not asked for",
    "allocated": "not allocated",
    "script": "its script did not start",
    "environment": "its environment was not ready",
    "probe": "its devices were not probed",
    "ray": "Ray was not up",
    "lease": "it took no trial",
    "report": "its trial reported nothing",
    "ended": "it did not end",
}


@dataclass(frozen=True)
class WaitingWork:
    """Trials that could run at once and that nobody holds."""

    trials: int = 0
    since: float | None = None
    """Since when some of it has waited, seconds since 1970; None: not known."""

    def __bool__(self) -> bool:
        return self.trials > 0


@dataclass(frozen=True)
class NodeHealth:
    """Where one node stands."""

    state: NodeState
    """`working`: holds trials; `ready`: could; `draining`: gives back what it holds; `starting`:
    on its way; `waiting`: for an allocation; `failed`: will not work, and says why; `silent`: not
    heard of for a minute, without goodbye; `ended`: said goodbye."""
    stage: Stage | None
    """The last one that was reached."""
    since: float | None
    """When that was, or since when it is in this state; seconds since 1970."""
    waits_for: Stage | None
    overdue: str = ""
    """What was not reached in time, in one sentence; empty while nothing is late."""
    failure: Failure | None = None
    """Of the attempt that is under way, or the last one."""
    silent_s: float | None = None
    """Since it was last heard of, where that is too long."""

    @property
    def words(self) -> str:
        """The stage for people."""
        return WORDS[self.stage] if self.stage else ""

    @property
    def needs_a_look(self) -> bool:
        """Whether a person should know."""
        return bool(self.overdue or self.failure) or self.state in ("failed", "silent")


def health_of(
    record: NodeRecord,
    now: float,
    work: WaitingWork,
    within_s: Mapping[Stage, float | None] = WITHIN_S,
) -> NodeHealth:
    """Where a node stands.

    Args:
        now: seconds since 1970.
        work: a node that has nothing to do is late with nothing.
        within_s: seconds that each stage may take.
    """
    marks = record.marks
    failure = _failure(record, marks)
    state = _state(record, marks, failure, now)
    came_to = marks if failure is None else [mark for mark in marks if mark.stage != "ended"]
    stand = standing(came_to, within_s)
    silent_s = now - record.heard_at if state == "silent" else None
    late = ""
    if state in ("starting", "waiting", "ready", "working"):
        late = _overdue(record, marks, now, work, within_s)
    return NodeHealth(
        state=state,
        stage=stand.reached.stage if stand.reached else None,
        since=stand.reached.at if stand.reached else record.newest.since or None,
        waits_for=failure.stage if failure is not None else stand.waits_for,
        overdue=late,
        failure=failure,
        silent_s=silent_s,
    )


def _failure(record: NodeRecord, marks: list[Mark]) -> Failure | None:
    """Unless a new attempt has begun since."""
    failure = record.failure
    begun_again = failure is not None and any(
        mark.at > failure.at and mark.stage != "ended" for mark in marks
    )
    return None if begun_again else failure


def _state(record: NodeRecord, marks: list[Mark], failure: Failure | None, now: float) -> NodeState:
    reached = marks[-1].stage if marks else "asked"
    if failure is not None:
        return "failed"
    if reached == "ended":
        return "ended"
    itself = record.itself
    starters = record.starter.marks if record.starter is not None else ()
    if itself is None or any(mark.at > itself.at for mark in starters):
        return "starting" if STAGES.index(reached) > STAGES.index("asked") else "waiting"
    if not record.is_fresh(now):
        return "silent"
    if itself.state.startswith("draining"):
        return "draining"
    if itself.slots or reached == "report":
        return "working" if itself.slots else "ready"
    is_up = STAGES.index(reached) >= STAGES.index("ray") or _idles(record)
    return "ready" if is_up else "starting"


def _idles(record: NodeRecord) -> bool:
    """A `serve` starts its own Ray only once there is work."""
    probed = any(mark.stage == "probe" for mark in record.marks)
    return probed and record.itself is not None and record.itself.state.startswith("idle")


def _overdue(
    record: NodeRecord,
    marks: list[Mark],
    now: float,
    work: WaitingWork,
    within_s: Mapping[Stage, float | None],
) -> str:
    stand = standing(marks, within_s)
    reached, waits_for = stand.reached, stand.waits_for
    limit_s = within_s.get(waits_for) if waits_for is not None else None
    if reached is None or waits_for is None or limit_s is None:
        return ""
    begins = reached.at
    if waits_for in ("ray", "lease"):
        if not work:
            return ""
        begins = max(begins, work.since or begins)
    if waits_for == "report" and not record.newest.slots:
        return ""
    if now - begins <= limit_s:
        return ""
    host = reached.host or record.host
    where = f" on {host}" if host and host != "-" else ""
    return (
        f"{WORDS[reached.stage]} {in_words(now - reached.at)} ago{where}; "
        f"{NOT_REACHED[waits_for]} within {in_words(limit_s)}"
    )


def in_words(seconds: float) -> str:
    """A time in its largest unit: 40 s, 4 min, 3 h, 2 days."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
