"""Finished outputs in the store, each with the record of how it came to be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.kind import Finished
from orchestrator.log.events import finite
from orchestrator.redaction import recorded_environment
from orchestrator.store import KeyMissing, Store, StoreError
from orchestrator.trials.desk import Ticket

RECORD = "record.json"


def register_artefact(
    store: Store,
    ticket: Ticket,
    settings: Mapping[str, Any],
    finished: Finished,
    folder: Path,
    last_check: Callable[[], None] | None = None,
) -> str:
    """Write record.json beside the files and upload the set; returns the artefact's id.

    The id is that of the trial, so the same trial finished twice (its driver died in between)
    registers once.

    Args:
        last_check: the fencing check; what it raises stops the registration.
    """
    artefact = f"{ticket.sweep}-{ticket.trial}"
    record = {
        "id": artefact,
        "kind": finished.kind,
        "sweep": ticket.sweep,
        "trial": ticket.trial,
        "config": dict(ticket.config),
        "setup": dict(settings["setup"]),
        "metrics": finite(finished.metrics),
        "lineage": _lineage(ticket, finished),
        "cost": {
            "seconds": finished.busy_seconds,
            "usd": finished.busy_seconds * settings["usd_per_hour"] / 3600,
        },
        "versions": dict(finished.record.get("versions", {})),
        "environment": recorded_environment(),
        "created_at": time.time(),
        "record": {
            key: value
            for key, value in finished.record.items()
            if key not in ("lineage", "versions")
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True, allow_nan=False))
    store.put_files(folder, store.layout.artefact(finished.kind, artefact), last_check)
    return artefact


def finished_before(store: Store, ticket: Ticket, kind: str) -> dict[str, Any] | None:
    """A finished trial's end, from its artefact; None while there is no complete one.

    For one whose driver died after the artefact was complete and before its end was told: it need
    not be trained and measured again.

    Args:
        kind: the artefact kind.
    """
    artefact = f"{ticket.sweep}-{ticket.trial}"
    prefix = store.layout.artefact(kind, artefact)
    if store.files(prefix) is None:
        return None
    return {
        "artefact": artefact,
        "metrics": store.read_json(prefix + RECORD)["metrics"],
        "tokens": ticket.total_tokens,
    }


def registered_metrics(store: Store, kind: str, artefact: str) -> dict[str, float | None]:
    """What its record says: of a trial that was finished twice, the numbers of what was kept."""
    metrics: dict[str, float | None] = store.read_json(
        store.layout.artefact(kind, artefact) + RECORD
    )["metrics"]
    return metrics


def _lineage(ticket: Ticket, finished: Finished) -> dict[str, Any]:
    """With the artefacts that the trial was given, by hash, before what its kind says."""
    lineage = dict(finished.record.get("lineage", {}))
    given = [{"id": one["id"], "sha256": one["sha256"]} for one in ticket.inputs]
    own = [parent for parent in lineage.get("parents", ()) if parent not in given]
    return {**lineage, "parents": [*given, *own]}


def artefact_records(store: Store) -> Iterator[tuple[dict[str, Any], str]]:
    """Record and path of every complete artefact, by kind and id."""
    for kind in store.backend.children(store.layout.artefacts):
        for artefact in store.backend.children(store.layout.artefact_kind(kind)):
            prefix = store.layout.artefact(kind, artefact)
            if store.files(prefix) is None:
                continue
            try:
                record = store.read_json(prefix + RECORD)
            except (KeyMissing, StoreError):
                continue
            yield record, store.local_path(prefix)
