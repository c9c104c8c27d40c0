"""Machines that work for this store: kept out, silent, late in their start."""

from __future__ import annotations

import time
from collections.abc import Iterable

from orchestrator.doctor.base import Check, Finding
from orchestrator.nodes.health import NodeHealth, health_of, in_words
from orchestrator.nodes.quarantine import hosts_kept_out
from orchestrator.nodes.records import NodeRecord, read_nodes
from orchestrator.store import Store
from orchestrator.view.facts import WatchedSweep
from orchestrator.view.nodes_rows import waiting_work

FORGOTTEN_AFTER_S = 86400.0
"""A node that has been silent for longer is history."""
GOOD = ("working", "ready", "draining")


class Nodes(Check):
    """What `saeq nodes` shows in full."""

    name = "nodes"
    order = 70

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        now = time.time()
        records = read_nodes(store)
        watched = WatchedSweep.open_all(store) if records else []
        work = waiting_work([(each.facts, each.log.state) for each in watched])
        healths = [(each, health_of(each, now, work)) for each in records]
        yield _there([health for _, health in healths])
        for standing in hosts_kept_out(store):
            since = in_words(now - (standing.kept_out_since or now))
            what = f"host {standing.host} has been kept out for {since}: {standing.why}"
            yield Finding("warning", what, f"mend it, then `saeq nodes --release {standing.host}`")
        for record, health in healths:
            if (health.silent_s or 0) < FORGOTTEN_AFTER_S:
                yield from _trouble(record, health)


def _there(healths: list[NodeHealth]) -> Finding:
    good = sum(health.state in GOOD for health in healths)
    starting = sum(health.state in ("starting", "waiting") for health in healths)
    if not good and not starting:
        return Finding("ok", "no node works for this store now")
    coming = f", {starting} on the way" if starting else ""
    return Finding("ok", f"{good} node{'' if good == 1 else 's'} there{coming}")


def _trouble(record: NodeRecord, health: NodeHealth) -> Iterable[Finding]:
    see = "`saeq nodes` shows its stages and the end of its log"
    if health.failure is not None:
        yield Finding("warning", f"node {record.id} failed: {health.failure.why}", see)
    elif health.overdue:
        yield Finding("warning", f"node {record.id} is late: {health.overdue}", see)
    elif health.state == "silent":
        what = f"node {record.id} has been silent for {in_words(health.silent_s or 0)}"
        yield Finding("note", f"{what}: it was lost or killed", see)
