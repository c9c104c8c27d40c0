"""What nothing in the store refers to and still takes room."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.units import format_bytes
from orchestrator.doctor.base import Check, Finding, Level
from orchestrator.garbage import GarbageSearch
from orchestrator.store import Store

MUCH_BYTES = 10 * 2**30


class Rubbish(Check):
    """What `saeq gc` shows in full."""

    name = "left over"
    order = 90

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        found = GarbageSearch(store).find()
        if not found:
            yield Finding("ok", "nothing in the store that nothing refers to")
            return
        num_bytes = sum(one.num_bytes for one in found)
        what = f"{len(found)} left over, {format_bytes(num_bytes)}"
        level: Level = "warning" if num_bytes >= MUCH_BYTES else "note"
        yield Finding(level, what, "`saeq gc` shows it, `saeq gc --yes` removes it")
