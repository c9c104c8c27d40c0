"""What job kinds write for people: each trial's own report, and one of the whole sweep."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from jobs.kind import FinishedTrial
from orchestrator.log.state import SweepState
from orchestrator.needs.inputs import input_artefacts, with_files
from orchestrator.needs.readiness import Reference
from orchestrator.queue import QueuedSweep
from orchestrator.store import Store

REPORT = "report"
"""Folder of an artefact whose files are for people."""


TRIALS = "trials"
"""Where they go: a folder a trial."""


def write_reports(store: Store, queued: QueuedSweep, state: SweepState, folder: Path) -> list[Path]:
    """Write the reports of what has finished so far; the one to open first in front.

    Raises:
        OSError: a file cannot be written.
        StoreError: an artefact cannot be fetched.
    """
    kind = queued.spec.kind
    if not kind.leaves_reports:
        return []
    trials = list(_finished(store, queued, state))
    if not trials:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = list(kind.write_report(queued.spec.setup, trials, folder))
    with_own = [trial for trial in trials if (trial.folder / REPORT).is_dir()]
    for trial in with_own:
        shutil.copytree(trial.folder / REPORT, folder / TRIALS / trial.trial, dirs_exist_ok=True)
    return [*written, *([folder / TRIALS] if with_own else [])]


def _finished(store: Store, queued: QueuedSweep, state: SweepState) -> Iterator[FinishedTrial]:
    kind = queued.spec.kind.artefact_kind
    for trial in state.by_number():
        if trial.status != "finished" or trial.artefact is None:
            continue
        files = store.files(store.layout.artefact(kind, trial.artefact))
        if files is None:  # removed since
            continue
        reference: Reference = {
            "kind": kind,
            "id": trial.artefact,
            "sweep": queued.id,
            "sha256": files.sha256,
        }
        (found,) = input_artefacts(store, [reference])
        fetched = with_files(store, found)
        assert fetched.folder is not None
        metrics = {name: value for name, value in trial.metrics.items() if value is not None}
        yield FinishedTrial(trial.id, trial.config, metrics, trial.artefact, fetched.folder)
