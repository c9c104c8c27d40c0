"""Finished outputs in the store, each with the record of how it came to be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.kind import Finished
from orchestrator.log.events import finite
from orchestrator.store import KeyMissing, Store, StoreError
from orchestrator.trials.desk import Ticket

RECORD = "record.json"


def register_artefact(
    store: Store, ticket: Ticket, settings: Mapping[str, Any], finished: Finished, folder: Path
) -> str:
    """Write record.json beside the files and upload the set; returns the artefact's id.

    The id is that of the trial, so the same trial finished twice (its driver died in between)
    registers once.
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
        "lineage": dict(finished.record.get("lineage", {})),
        "cost": {
            "seconds": finished.busy_seconds,
            "usd": finished.busy_seconds * settings["usd_per_hour"] / 3600,
        },
        "versions": dict(finished.record.get("versions", {})),
        "created_at": time.time(),
        "record": {
            key: value
            for key, value in finished.record.items()
            if key not in ("lineage", "versions")
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True, allow_nan=False))
    store.put_files(folder, store.layout.artefact(finished.kind, artefact))
    return artefact


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
