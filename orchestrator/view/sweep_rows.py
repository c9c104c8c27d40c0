"""The rows of `saeq ls`, quickly: what stands still is kept on this machine.

A kept row counts only while the sweep's record and the sizes of its log are what they were, so it
never shows an old state; and commands that only look write nothing into the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.log.sweep_log import SweepLog, log_sizes
from orchestrator.log.sweep_status import is_over
from orchestrator.queue import Queue, QueuedSweep
from orchestrator.store import Store
from orchestrator.view.facts import WatchedSweep
from orchestrator.view.listing import SweepRow, sweep_row

FORMAT = 1
"""Raise it when a row would be computed otherwise from the same log."""

NUM_STORES = 32
"""Stores whose rows are kept; the one listed longest ago is forgotten."""


def sweep_rows(store: Store, now: float) -> list[SweepRow]:
    """Every sweep of the store that can be read, oldest first.

    Args:
        now: seconds since 1970.
    """
    queue = Queue(store)
    records = queue.records()
    hashes = {sweep: hashlib.sha256(data).hexdigest() for sweep, data in records.items()}
    place = _cache_file(store.url)
    kept = _read(place)
    known = _still_true(store, kept, hashes)
    unknown = {sweep: data for sweep, data in records.items() if sweep not in known}
    found: list[tuple[float, SweepRow]] = []
    for entry in known.values():
        age_s = max(now - entry["submitted_at"], 0.0)
        found.append((entry["submitted_at"], SweepRow(**entry["row"], age_s=age_s)))
    fresh = queue.read(unknown)
    for queued, watched in zip(fresh, WatchedSweep.open_all(store, fresh), strict=True):
        row = sweep_row(watched.facts, watched.log.state, now)
        found.append((queued.submitted_at, row))
        if _stands_still(row, queued):
            entry = _entry(row, queued.submitted_at, hashes[row.sweep], watched.log)
            known[row.sweep] = entry
    if known != kept:
        _write(place, known)
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _stands_still(row: SweepRow, queued: QueuedSweep) -> bool:
    """Whether its row follows from its record and its log alone, whatever the time."""
    return is_over(row.state) or (row.state == "queued" and not queued.spec.needs)


def _entry(row: SweepRow, submitted_at: float, record: str, log: SweepLog) -> dict[str, Any]:
    fields = asdict(replace(row, counts=dict(row.counts)))
    del fields["age_s"]
    return {"record": record, "log": log.num_bytes_read, "submitted_at": submitted_at,
            "row": fields}  # fmt: skip


def _still_true(
    store: Store, kept: Mapping[str, Any], hashes: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    same = [sweep for sweep, sha256 in hashes.items() if _record_of(kept.get(sweep)) == sha256]
    sizes = store.side_by_side(partial(log_sizes, store), same)
    fields = set(SweepRow.__dataclass_fields__) - {"age_s"}
    return {
        sweep: kept[sweep]
        for sweep, size in zip(same, sizes, strict=True)
        if kept[sweep]["log"] == size and set(kept[sweep]["row"]) == fields
    }


def _record_of(entry: Any) -> str | None:
    whole = {"record", "log", "submitted_at", "row"}
    return entry["record"] if isinstance(entry, dict) and set(entry) == whole else None


def _cache_file(url: str) -> Path:
    root = os.environ.get("SAEQ_CACHE")
    folder = Path(root).expanduser() if root else Path.home() / ".cache" / "saeq"
    return folder / "listings" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"


def _read(place: Path) -> dict[str, Any]:
    """What is kept; nothing where there is none, or an older saeq's, or half a file."""
    try:
        kept = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return {}
    sound = isinstance(kept, dict) and kept.get("format") == FORMAT
    sweeps = kept["sweeps"] if sound else {}
    return sweeps if isinstance(sweeps, dict) else {}


def _write(place: Path, known: Mapping[str, Any]) -> None:
    """Whole or not at all; a machine that keeps nothing computes it anew each time."""
    temporary = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    with suppress(OSError, ValueError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            text = json.dumps({"format": FORMAT, "sweeps": known}, allow_nan=False)
            temporary.write_text(text)
            temporary.replace(place)
            _remove_all_but_the_newest(place.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _remove_all_but_the_newest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-NUM_STORES]:
        path.unlink(missing_ok=True)
