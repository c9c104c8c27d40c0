"""The artefacts that a trial is given: their records, and their files where they are wanted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from jobs.kind import InputArtefact, JobKind, TrialFailed
from orchestrator.needs.readiness import Reference
from orchestrator.store import Damaged, KeyMissing, Store
from orchestrator.trials.artefacts import RECORD
from orchestrator.trials.ticket import Ticket


def inputs_of(store: Store, ticket: Ticket, kind: JobKind) -> tuple[InputArtefact, ...]:
    """What a trial is given, with the files where its kind wants them.

    Raises:
        TrialFailed: an artefact is gone, or is not the one that was chosen.
        StoreError: the store cannot be asked.
    """
    try:
        found = input_artefacts(store, ticket.inputs)
        return tuple(with_files(store, one) for one in found) if kind.takes_input_files else found
    except Damaged as error:
        raise TrialFailed(str(error), final=True) from error


def input_artefacts(store: Store, references: Iterable[Reference]) -> tuple[InputArtefact, ...]:
    """Read the records of what was chosen, without the files.

    Raises:
        Damaged: an artefact is gone, or is not the one that was chosen.
        StoreError: the store cannot be asked.
    """
    return tuple(_input_artefact(store, reference) for reference in references)


def _input_artefact(store: Store, reference: Reference) -> InputArtefact:
    prefix = store.layout.artefact(reference["kind"], reference["id"])
    files = store.files(prefix)
    if files is None or files.sha256 != reference["sha256"]:
        what = "is gone" if files is None else "has another sha256 than the one that was chosen"
        raise Damaged(prefix, f"this input {what}; submit the sweep anew under another name")
    try:
        record = store.read_json(prefix + RECORD)
    except KeyMissing as error:
        raise Damaged(prefix, f"{RECORD} is missing") from error
    return InputArtefact(
        id=reference["id"],
        kind=reference["kind"],
        sweep=reference["sweep"],
        sha256=reference["sha256"],
        record=record,
    )


def with_files(store: Store, artefact: InputArtefact, cache: Path | None = None) -> InputArtefact:
    """The artefact with its files on this machine, checked, fetched once for all trials here.

    Args:
        cache: folder of folders named by sha256; not given: `artefacts` below $SAEQ_CACHE, else
            below ~/.cache/saeq.

    Raises:
        Damaged: what is in the store is not what was chosen.
        StoreError: it cannot be fetched.
    """
    cache = cache or artefact_cache()
    folder = cache / artefact.sha256
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{artefact.sha256[:16]}.part-", dir=cache))
        try:
            _fetch(store, artefact, part)
            _appear(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return replace(artefact, folder=folder)


def _fetch(store: Store, artefact: InputArtefact, folder: Path) -> None:
    prefix = store.layout.artefact(artefact.kind, artefact.id)
    fetched = store.get_files(prefix, folder)
    if fetched.sha256 != artefact.sha256:
        raise Damaged(prefix, "has another sha256 than the one that was chosen")


def _appear(part: Path, folder: Path) -> None:
    """Whole or not at all; another process on this machine may have been faster."""
    try:
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():
            raise


def artefact_cache() -> Path:
    """Where fetched artefacts are kept on this machine."""
    given = os.environ.get("SAEQ_CACHE")
    root = Path(given).expanduser() if given else Path("~/.cache/saeq").expanduser()
    return root / "artefacts"
