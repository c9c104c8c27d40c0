"""An artefact is registered once, and what is said of it is what was kept."""

from __future__ import annotations

from pathlib import Path

from jobs.kind import Finished
from orchestrator.store import Store
from orchestrator.trials.artefacts import RECORD, register_artefact, registered_metrics
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
