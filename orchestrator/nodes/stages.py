"""The stages of a node's start, in order, each with a deadline, and the lines that tell of them.

A line is `<unix time> <host> <stage> <detail>`: a shell script writes it before Python exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal[
    "asked", "allocated", "script", "environment", "probe", "ray", "lease", "report", "ended"
]
STAGES: tuple[Stage, ...] = get_args(Stage)

WORDS: Mapping[Stage, str] = {
    "asked": "asked for",
    "allocated": "allocated",
    "script": "script started",
    "environment": "environment ready",
    "probe": "device probed",
    "ray": "Ray up",
    "lease": "first lease",
    "report": "first report",
    "ended": "ended",
}

WITHIN_S: Mapping[Stage, float | None] = {
    "asked": None,
    "allocated": None,  # a queue may be long: who waits is told why, not that it failed
    "script": 120.0,
    "environment": 900.0,
    "probe": 180.0,
    "ray": 180.0,
    "lease": 120.0,  # counts only while the store has work that nobody holds
    "report": 1800.0,
    "ended": None,
}
"""Seconds from the stage before it, after which a start has failed; None: no limit."""


@dataclass(frozen=True)
class Mark:
    """A stage was reached."""

    stage: Stage
    at: float
    """Seconds since 1970, by the clock of whoever wrote it."""
    host: str = ""
    detail: str = ""

    def to_line(self) -> str:
        """As a script would write it, without the newline."""
        return " ".join([f"{self.at:.3f}", self.host or "-", self.stage, self.detail]).rstrip()


def parse_lines(text: str) -> list[Mark]:
    """The marks in a script's file, in its order; a line that is none is left out."""
    marks = []
    for line in text.splitlines():
        at, _, rest = line.partition(" ")
        host, _, rest = rest.partition(" ")
        stage, _, detail = rest.partition(" ")
        try:
            marks.append(Mark(_STAGE_BY_NAME[stage], float(at), host, detail))
        except (KeyError, ValueError):
            continue
    return marks


_STAGE_BY_NAME: Mapping[str, Stage] = {stage: stage for stage in STAGES}


def last_attempt(marks: Iterable[Mark]) -> list[Mark]:
    """The marks since the start began anew: a stage that comes again takes back all later ones."""
    current: list[Mark] = []
    for mark in marks:
        place = STAGES.index(mark.stage)
        current = [one for one in current if STAGES.index(one.stage) < place]
        current.append(mark)
    return current


@dataclass(frozen=True)
class Standing:
    """How far a start has come."""

    reached: Mark | None
    waits_for: Stage | None
    """The next stage; None once there is nothing more to reach."""
    due_at: float | None
    """When the next stage has to be reached, seconds since 1970; None: no limit."""

    def is_overdue(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.due_at is not None and now > self.due_at


def standing(marks: Sequence[Mark], within_s: Mapping[Stage, float | None] = WITHIN_S) -> Standing:
    """Where a start stands; stages that a way of starting does not have are simply skipped.

    Args:
        marks: of the last attempt, in order.
    """
    if not marks:
        return Standing(None, "asked", None)
    reached = marks[-1]
    place = STAGES.index(reached.stage) + 1
    if reached.stage in ("report", "ended"):
        return Standing(reached, None, None)
    waits_for = STAGES[place]
    limit_s = within_s.get(waits_for)
    return Standing(reached, waits_for, None if limit_s is None else reached.at + limit_s)
