"""How much work a store has that nobody holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.control.orders import Orders
from orchestrator.queue import Queue
from orchestrator.slurm.demand import Demand
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.orchestrator.running import SWEEP

SMALL = {
    "model": "nobody/asks", "tokens": "100k", "lrs": "1.0e-3", "early_stop": "{scheduler: none}",
    "report": "25k", "checkpoint_seconds": 1, "members": 4,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def submit(store: Store, name: str) -> str:
    text = SWEEP.format(name=name, **SMALL)
    return Queue(store).submit(parse_sweep(text), text)[0].id


def test_trials_of_all_sweeps_count_that_could_run_now(store: Store) -> None:
    demand = Demand(store)
    assert demand.num_trials() == 0

    submit(store, "a")
    submit(store, "b")
    assert demand.num_trials() == 4


def test_what_is_paused_or_cancelled_is_no_work(store: Store) -> None:
    demand = Demand(store)
    paused, cancelled = submit(store, "a"), submit(store, "b")
    assert demand.num_trials() == 4

    Orders(store, paused).pause()
    assert demand.num_trials() == 2
    Orders(store, cancelled).cancel()
    assert demand.num_trials() == 0
    Orders(store, paused).resume()
    assert demand.num_trials() == 2


def test_a_record_that_was_removed_is_forgotten(store: Store) -> None:
    demand, sweep = Demand(store), submit(store, "a")
    assert demand.num_trials() == 2

    store.backend.delete(store.layout.queued(sweep))
    assert demand.num_trials() == 0
