"""Sweeps that wait, and why nobody works on them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from orchestrator.doctor.base import Check, Finding
from orchestrator.log.sweep_status import is_over
from orchestrator.nodes.records import read_nodes
from orchestrator.store import Store
from orchestrator.view.listing import SweepRow
from orchestrator.view.sweep_rows import sweep_rows

SHOWN_SWEEPS = 5


class QueueCheck(Check):
    """What `saeq ls` shows in full."""

    name = "queue"
    order = 80

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        rows = sweep_rows(store, time.time())
        left = [row for row in rows if not is_over(row.state)]
        running = sum(row.state == "running" for row in left)
        if not left:
            over = f", {len(rows)} over" if rows else ""
            yield Finding("ok", f"no sweep is left to work on{over}")
            return
        yield Finding("ok", f"{len(left)} of {len(rows)} sweeps not over, {running} running")
        idle = [row for row in left if row.state in ("queued", "interrupted")]
        if idle:
            is_served = any(record.is_fresh() for record in read_nodes(store))
            yield from _waiting(idle, is_served)


def _waiting(idle: list[SweepRow], is_served: bool) -> Iterable[Finding]:
    for row in idle[:SHOWN_SWEEPS]:
        what = f"{row.sweep} is {row.state}: {row.why or 'nothing says why'}"
        # With a node there its next look may be a second away.
        yield Finding("note" if is_served else "warning", what)
    if len(idle) > SHOWN_SWEEPS:
        yield Finding("note", f"and {len(idle) - SHOWN_SWEEPS} more", "saeq ls")
    if not is_served:
        yield Finding(
            "warning",
            "no node is there to work on them",
            "saeq serve, here or where the GPUs are",
        )
