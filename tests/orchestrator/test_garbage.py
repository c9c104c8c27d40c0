"""What nothing refers to is found and removed; what a running trial needs is never touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestrator.garbage import (
    CUT_OFF,
    LEFT_OVER,
    NO_MANIFEST,
    OF_ENDED,
    OLD_NODES,
    OLD_ORDERS,
    Garbage,
    GarbageSearch,
)
from orchestrator.log.events import Leased, Preempted, Started
from orchestrator.nodes.records import NodeSide, read_nodes, write_side
from orchestrator.store import MANIFEST, Store
from orchestrator.store.folder import FolderBackend
from tests.orchestrator.invented_sweep import InventedSweep, config, sweep_in_all_states

SWEEP = "demo"


@pytest.fixture
def sweep(tmp_path: Path) -> InventedSweep:
    """One trial that runs under its second lease, and one that was given back."""
    sweep = InventedSweep.under(tmp_path / "store")
    sweep.begin()
    for number in (0, 1):
        sweep.suggest(number, config(number))
        trial = f"t{number:04d}"
        sweep.say(Preempted(trial=trial, epoch=1, reason="asked to stop", tokens=0))
    sweep.say(Leased(trial="t0000", epoch=2), Started(trial="t0000", epoch=2))
    return sweep


def put_set(store: Store, prefix: str, *, whole: bool) -> str:
    store.backend.put(f"{prefix}state", b"12345")
    if whole:
        store.write_json(prefix + MANIFEST, {"files": {}})
    return prefix


def checkpoint(store: Store, trial: str, epoch: int, *, whole: bool, tokens: int = 8000) -> str:
    return put_set(store, store.layout.checkpoint(SWEEP, trial, tokens, epoch), whole=whole)


def age(store: Store, seconds: float) -> None:
    """Make everything in the store look so old."""
    assert isinstance(store.backend, FolderBackend)
    then = time.time() - seconds
    for path in store.backend.root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def found(store: Store) -> dict[str, list[str]]:
    by_kind: dict[str, list[str]] = {}
    for one in GarbageSearch(store).find():
        by_kind.setdefault(one.kind, []).append(one.place)
    return by_kind


def test_checkpoints_of_ended_trials_are_garbage(tmp_path: Path) -> None:
    sweep = sweep_in_all_states(tmp_path / "store")
    state = sweep.watched().log.state
    (first_ended, *_) = [trial for trial in state.by_number() if trial.ended]
    prefix = checkpoint(sweep.store, first_ended.id, 1, whole=True)
    (alive, *_) = [trial for trial in state.by_number() if not trial.ended]
    checkpoint(sweep.store, alive.id, 1, whole=True)
    assert found(sweep.store) == {OF_ENDED: [prefix]}


def test_unfinished_sets_count_once_they_are_old(sweep: InventedSweep) -> None:
    cut_off = checkpoint(sweep.store, "t0000", 1, whole=False)
    given_back = checkpoint(sweep.store, "t0001", 1, whole=False)
    artefact = put_set(sweep.store, sweep.store.layout.artefact("sae", "demo-t0001"), whole=False)
    assert found(sweep.store) == {}
    age(sweep.store, 3700)
    assert found(sweep.store) == {CUT_OFF: [cut_off, given_back], NO_MANIFEST: [artefact]}


def test_nothing_that_a_live_lease_covers_is_garbage_however_old(sweep: InventedSweep) -> None:
    checkpoint(sweep.store, "t0000", 2, whole=False)
    put_set(sweep.store, sweep.store.layout.artefact("sae", "demo-t0000"), whole=False)
    checkpoint(sweep.store, "t0000", 1, whole=True)
    checkpoint(sweep.store, "t0001", 1, whole=True)
    sweep.store.write_json(sweep.store.layout.give_back(SWEEP, "t0000", 2), {"reason": "r"})
    own = sweep.store.layout.checkpoint(SWEEP, "t0000", 8000, 2)
    assert isinstance(sweep.store.backend, FolderBackend)
    (sweep.store.backend.path(f"{own}state").with_name("state.~1234")).write_bytes(b"on its way")
    age(sweep.store, 10 * 86400)
    assert found(sweep.store) == {}


def test_writes_cut_off_are_found_and_locks_are_left(sweep: InventedSweep) -> None:
    assert isinstance(sweep.store.backend, FolderBackend)
    sweep.store.backend.put("queue/x.json", b"{}")
    folder = sweep.store.backend.root / "queue"
    (folder / "x.json.~0123").write_bytes(b"half")
    (folder / "x.json.~lock").touch()
    assert found(sweep.store) == {}
    age(sweep.store, 3700)
    assert found(sweep.store) == {LEFT_OVER: ["queue/x.json.~0123"]}


def test_orders_to_past_leases_are_garbage_at_once(sweep: InventedSweep) -> None:
    past = sweep.store.layout.give_back(SWEEP, "t0000", 1)
    for epoch in (1, 2):
        key = sweep.store.layout.give_back(SWEEP, "t0000", epoch)
        sweep.store.write_json(key, {"reason": "paused"})
    assert found(sweep.store) == {OLD_ORDERS: [past]}


def test_removing_looks_again_first(sweep: InventedSweep) -> None:
    """Between being shown and being removed a trial may have been taken up again."""
    first = checkpoint(sweep.store, "t0001", 1, whole=False)
    age(sweep.store, 3700)
    search = GarbageSearch(sweep.store)
    shown = search.find()
    assert [one.place for one in shown] == [first]
    sweep.store.backend.put(f"{first}more", b"somebody is at work here")
    assert search.remove(shown) == []
    assert sweep.store.backend.exists(f"{first}state")


def test_what_is_removed_is_gone_and_the_rest_stays(sweep: InventedSweep) -> None:
    kept = checkpoint(sweep.store, "t0000", 1, whole=True)
    assert isinstance(sweep.store.backend, FolderBackend)
    checkpoint(sweep.store, "t0000", 1, whole=False, tokens=9000)
    put_set(sweep.store, sweep.store.layout.artefact("sae", "demo-t0001"), whole=False)
    sweep.store.write_json(sweep.store.layout.give_back(SWEEP, "t0000", 1), {"reason": "r"})
    (sweep.store.backend.root / "queue").mkdir(exist_ok=True)
    (sweep.store.backend.root / "queue" / "x.json.~0123").write_bytes(b"half")
    age(sweep.store, 3700)
    before = {entry.key for entry in sweep.store.backend.entries("")}
    search = GarbageSearch(sweep.store)
    removed = search.remove(search.find())
    assert {one.kind for one in removed} == {CUT_OFF, NO_MANIFEST, LEFT_OVER, OLD_ORDERS}
    assert search.find() == []
    gone = before - {entry.key for entry in sweep.store.backend.entries("")}
    assert len(gone) == 3, "a checkpoint's file, an artefact's file, an order"
    assert sweep.store.files(kept) is not None
    assert not list(sweep.store.backend.root.rglob("*.~*"))


def test_sizes_are_those_of_the_files(sweep: InventedSweep) -> None:
    prefix = checkpoint(sweep.store, "t0001", 1, whole=False)
    age(sweep.store, 3700)
    assert GarbageSearch(sweep.store).find() == [Garbage(CUT_OFF, prefix, 5)]


def test_nodes_that_nobody_heard_of_for_a_week_go(sweep: InventedSweep) -> None:
    store, week_s = sweep.store, 7 * 24 * 3600.0
    for node, ago_s in (("old", week_s + 60), ("quiet", week_s - 3600)):
        side = NodeSide(id=node, at=time.time() - ago_s)
        store.write_json(store.layout.node_self(node), side.model_dump(mode="json"))
        store.write_json(store.layout.node_starter(node), side.model_dump(mode="json"))
    old = NodeSide(id="back", at=0.0)
    store.write_json(store.layout.node_starter("back"), old.model_dump(mode="json"))
    write_side(store, "self", NodeSide(id="back"))
    search = GarbageSearch(store)
    found = [one for one in search.find() if one.kind == OLD_NODES]
    assert [one.place for one in found] == ["nodes/old/"]
    search.remove(found)
    assert [record.id for record in read_nodes(store)] == ["back", "quiet"]
