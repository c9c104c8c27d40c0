"""The loop of a keeper: how often it looks, and when it is done."""

from __future__ import annotations

import time
from typing import Literal

from orchestrator.slurm.keeper_post import KeeperPost
from orchestrator.slurm.keeping import Keeping

Outcome = Literal["started", "over", "hopeless", "given up", "down"]

SOON_S = 3.0
"""Between two looks while a job starts."""
LATER_S = 15.0
"""While all wait or work; administrators count calls of squeue."""
SOON_FOR_S = 120.0
"""A queue may let a job in at once, or in hours."""


def keep_watch(
    keeping: Keeping,
    post: KeeperPost,
    *,
    until_started: bool,
    is_elastic: bool,
    every_s: float | None = None,
) -> Outcome:
    """Look and act, again and again.

    Args:
        until_started: return as soon as every job works (`started`), or none ever will
            (`hopeless`); otherwise only when nothing is left to keep (`over`).
        is_elastic: jobs may come when there is work, so having none is no end.
        every_s: seconds between two looks; None: as it seems right.
    """
    began = time.monotonic()
    while True:
        post.beat()
        has_looked = keeping.step()
        outcome = _outcome(keeping, until_started, is_elastic) if has_looked else None
        if outcome is not None:
            return outcome
        time.sleep(every_s or _pause_s(keeping, time.monotonic() - began))


def _outcome(keeping: Keeping, until_started: bool, is_elastic: bool) -> Outcome | None:
    if keeping.all_settled:
        if keeping.folder.going_down.exists():
            return "down"
        if keeping.memory.given_up:
            return "given up"
        return None if is_elastic else "over"
    if not until_started or is_elastic:
        return None
    if keeping.all_started:
        return "started"
    return "hopeless" if keeping.hopeless else None


def _pause_s(keeping: Keeping, kept_s: float) -> float:
    starts = any(w.goes and not keeping.is_started(w) for w in keeping.workers)
    return SOON_S if starts or kept_s < SOON_FOR_S else LATER_S
