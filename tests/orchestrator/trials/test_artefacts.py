"""An artefact is registered once, and what is said of it is what was kept."""

from __future__ import annotations

from pathlib import Path

from jobs.kind import Finished
from orchestrator.store import Store
from orchestrator.trials.artefacts import (
    RECORD,
    finished_before,
    register_artefact,
    registered_metrics,
)
from orchestrator.trials.ticket import Ticket

SETTINGS = {"setup": {}, "usd_per_hour": 0.0}


def test_a_trial_finished_twice_is_told_with_the_numbers_of_what_was_kept(tmp_path: Path) -> None:
    """Its driver died after the upload and before the log had its end."""
    store = Store.open(str(tmp_path / "store"))
    for epoch, fvu in ((1, 0.25), (2, 0.125)):
        folder = tmp_path / str(epoch)
        folder.mkdir()
        ticket = Ticket("sweep", "t0000", epoch, {"k": 4}, 1000, (1000,), (), max_members=4)
        finished = Finished(kind="sae", metrics={"fvu": fvu}, record={}, busy_seconds=1.0)
        artefact = register_artefact(store, ticket, SETTINGS, finished, folder)
    record = store.read_json(store.layout.artefact("sae", artefact) + RECORD)
    assert record["metrics"] == {"fvu": 0.25}
    assert registered_metrics(store, "sae", artefact) == {"fvu": 0.25}


def test_a_complete_artefact_is_a_finished_trial_and_half_a_one_is_none(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    ticket = Ticket("sweep", "t0000", 2, {"k": 4}, 1000, (1000,), (), max_members=4)
    prefix = store.layout.artefact("sae", "sweep-t0000")
    store.backend.put(f"{prefix}{RECORD}", b"{}")
    assert finished_before(store, ticket, "sae") is None
    folder = tmp_path / "files"
    folder.mkdir()
    finished = Finished(kind="sae", metrics={"fvu": 0.25}, record={}, busy_seconds=1.0)
    artefact = register_artefact(store, ticket, SETTINGS, finished, folder)
    end = finished_before(store, ticket, "sae")
    assert end == {"artefact": artefact, "metrics": {"fvu": 0.25}, "tokens": 1000}
