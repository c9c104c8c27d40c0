"""Sweeps in the store: submitted once, found again by id."""

from __future__ import annotations

import difflib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

from pydantic import ValidationError

from orchestrator.log.author import author
from orchestrator.log.events import Submitted
from orchestrator.log.sweep_log import LogWriter
from orchestrator.spec.how_to_run import run_as
from orchestrator.spec.sweep import SweepSpec
from orchestrator.store import KeyMissing, Layout, Store, StoreError
from orchestrator.store.backend import check_key

logger = logging.getLogger(__name__)


class UnknownSweep(ValueError):
    """No sweep of that id is in the store."""

    def __init__(self, sweep: str, known: list[str], store: str) -> None:
        super().__init__(sweep, known, store)
        self.sweep, self.known, self.store = sweep, known, store

    def __str__(self) -> str:
        near = difflib.get_close_matches(self.sweep, self.known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        if not self.known:
            return (
                f"sweep {self.sweep!r} is not in the store {self.store}, which is empty; "
                "submit one with `saeq run FILE`, or name another --store"
            )
        shown = ", ".join(self.known[:8]) + (", ..." if len(self.known) > 8 else "")
        return f"sweep {self.sweep!r} is not in the store {self.store}; it has: {shown}.{hint}"


class DamagedSweep(StoreError):
    """The record of a sweep in the queue cannot be read."""

    def __init__(self, sweep: str, key: str, detail: str) -> None:
        super().__init__(sweep, key, detail)
        self.sweep, self.key, self.detail = sweep, key, detail

    def __str__(self) -> str:
        layout = Layout()
        return (
            f"sweep {self.sweep!r}: its record {self.key} is damaged ({self.detail}); its "
            f"trials are not: remove the record, submit {layout.spec_text(self.sweep)} of the "
            "store again, and it goes on where it was"
        )


@dataclass(frozen=True)
class QueuedSweep:
    """A sweep as it was submitted."""

    id: str
    spec: SweepSpec
    spec_sha256: str
    submitted_at: float
    priority: int


class Queue:
    """The submitted sweeps of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def submit(self, spec: SweepSpec, text: str) -> tuple[QueuedSweep, bool]:
        """Put a sweep into the queue; returns it and whether it is new.

        The same spec under the same name is the same sweep, whatever became of it. Another spec
        under a name that is taken gets the next free id: name-2, name-3, ... What only says how
        to run may change between runs and is taken over (`orchestrator.spec.how_to_run`).
        """
        for number in count(1):
            sweep = spec.name if number == 1 else f"{spec.name}-{number}"
            key = self._store.layout.queued(sweep)
            record = {
                "sweep": sweep,
                "spec": spec.model_dump(mode="json"),
                "spec_sha256": spec.identity_sha256,
                "submitted_at": time.time(),
                "priority": 0,
            }
            if self._store.create_json(key, record):
                self._announce(sweep, spec, text)
                return self.get(sweep), True
            queued = self.get(sweep)
            # As submitted, or as it is since it was extended.
            if spec.identity_sha256 in (queued.spec_sha256, queued.spec.identity_sha256):
                return self.change(sweep, run_as(spec)), False
        raise AssertionError("count() ended")

    def change(self, sweep: str, change: Callable[[SweepSpec], SweepSpec]) -> QueuedSweep:
        """Give a sweep another spec, by compare-and-swap; it stays the same sweep.

        Args:
            change: from the spec as it is; called again when somebody else was faster.

        Raises:
            UnknownSweep, DamagedSweep: there is none to change.
        """
        key = self._store.layout.queued(sweep)
        while True:
            queued = self.get(sweep)
            spec = change(queued.spec)
            if spec == queued.spec:
                return queued
            data, version = self._store.backend.get_versioned(key)
            record = json.loads(data)
            if SweepSpec.model_validate(record["spec"]) != queued.spec:
                continue
            record["spec"] = spec.model_dump(mode="json")
            text = json.dumps(record, indent=1, sort_keys=True)
            if self._store.backend.compare_and_swap(key, text.encode(), version):
                return self.get(sweep)

    def _announce(self, sweep: str, spec: SweepSpec, text: str) -> None:
        self._store.backend.put(self._store.layout.spec_text(sweep), text.encode())
        writer = LogWriter(self._store, sweep, role="submit")
        writer.append(Submitted(spec_sha256=spec.identity_sha256, by=author()))

    def get(self, sweep: str) -> QueuedSweep:
        """Raises UnknownSweep or DamagedSweep."""
        if not _is_name(sweep):
            raise UnknownSweep(sweep, self.ids(), self._store.url)
        try:
            data = self._store.backend.get(self._store.layout.queued(sweep))
        except KeyMissing as error:
            raise UnknownSweep(sweep, self.ids(), self._store.url) from error
        return self._parse(sweep, data)

    def _parse(self, sweep: str, data: bytes) -> QueuedSweep:
        """Raises DamagedSweep."""
        key = self._store.layout.queued(sweep)
        try:
            record = json.loads(data)
            return QueuedSweep(
                id=sweep,
                spec=SweepSpec.model_validate(record["spec"]),
                spec_sha256=record["spec_sha256"],
                submitted_at=float(record["submitted_at"]),
                priority=int(record["priority"]),
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise DamagedSweep(sweep, key, f"spec.{where}: {first['msg']}") from error
        except KeyError as error:
            raise DamagedSweep(sweep, key, f"it has no {error}") from error
        except (TypeError, ValueError) as error:
            raise DamagedSweep(sweep, key, str(error)) from error

    def ids(self) -> list[str]:
        """All sweeps, by name."""
        names = self._store.backend.children(self._store.layout.queue)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def records(self) -> dict[str, bytes]:
        """The record of every sweep, by its id."""
        sweep_of = {self._store.layout.queued(sweep): sweep for sweep in self.ids()}
        found = self._store.backend.get_many(dict.fromkeys(sweep_of, 0))
        return {sweep_of[key]: data for key, data in found.items()}

    def read(self, records: Mapping[str, bytes]) -> list[QueuedSweep]:
        """Sweeps by their records, oldest first; a damaged one is skipped with a warning."""
        found = []
        for sweep, data in records.items():
            try:
                found.append(self._parse(sweep, data))
            except DamagedSweep as error:
                logger.warning("%s", error)
        return sorted(found, key=lambda queued: queued.submitted_at)

    def all(self) -> list[QueuedSweep]:
        """All sweeps that can be read, oldest first; one that cannot is skipped with a warning."""
        return self.read(self.records())


def _is_name(sweep: str) -> bool:
    """Whether a store can have a sweep of that id at all: `saeq show ../x` asks for none."""
    try:
        check_key(sweep)
    except StoreError:
        return False
    return "/" not in sweep
