"""Sweeps in the store: submitted once, found again by id."""

from __future__ import annotations

import difflib
import getpass
import logging
import os
import socket
import time
from dataclasses import dataclass
from itertools import count

from pydantic import ValidationError

from orchestrator.log.events import Submitted
from orchestrator.log.sweep_log import LogWriter
from orchestrator.spec.sweep import SweepSpec
from orchestrator.store import Damaged, Layout, Store, StoreError

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
        to run (price, pack, device, checkpoint) may change between runs and is taken over.
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
            if queued.spec_sha256 == spec.identity_sha256:
                if queued.spec != spec:
                    kept = {"submitted_at": queued.submitted_at, "priority": queued.priority}
                    self._store.write_json(key, {**record, **kept})
                return self.get(sweep), False
        raise AssertionError("count() ended")

    def _announce(self, sweep: str, spec: SweepSpec, text: str) -> None:
        self._store.backend.put(self._store.layout.spec_text(sweep), text.encode())
        by = f"{_user()}@{socket.gethostname()}"
        writer = LogWriter(self._store, sweep, role="submit")
        writer.append(Submitted(spec_sha256=spec.identity_sha256, by=by))

    def get(self, sweep: str) -> QueuedSweep:
        """Raises UnknownSweep or DamagedSweep."""
        if sweep not in self.ids():
            raise UnknownSweep(sweep, self.ids(), self._store.url)
        key = self._store.layout.queued(sweep)
        try:
            record = self._store.read_json(key)
            return QueuedSweep(
                id=sweep,
                spec=SweepSpec.model_validate(record["spec"]),
                spec_sha256=record["spec_sha256"],
                submitted_at=float(record["submitted_at"]),
                priority=int(record["priority"]),
            )
        except Damaged as error:
            raise DamagedSweep(sweep, key, error.detail) from error
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

    def all(self) -> list[QueuedSweep]:
        """All sweeps that can be read, oldest first; one that cannot is skipped with a warning."""
        found = []
        for sweep in self.ids():
            try:
                found.append(self.get(sweep))
            except DamagedSweep as error:
                logger.warning("%s", error)
        return sorted(found, key=lambda queued: queued.submitted_at)


def _user() -> str:
    """Name of the user; the number where nobody has given it a name, as in many containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
