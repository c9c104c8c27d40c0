"""Checkpoints travel beside their trial: what counts, what is dropped, what a failure leads to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jobs.kind import TrialLost
from orchestrator.store import NotWritable, Store, StoreError
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.leases import still_held
from orchestrator.trials.uploads import CheckpointUploads, LocalState

WITHIN_S = 60.0


class Gate:
    """Holds every upload up until it is opened, and tells when one has come."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.come, self.open = threading.Event(), threading.Event()
        upload = store.backend.upload

        def held_up(local: Path, key: str) -> None:
            self.come.set()
            assert self.open.wait(WITHIN_S)
            upload(local, key)

        monkeypatch.setattr(store.backend, "upload", held_up)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def uploads(store: Store, epoch: int = 1) -> CheckpointUploads:
    checkpoints = Checkpoints(store, "s", "t0000")
    return CheckpointUploads(checkpoints, epoch, lambda: still_held(store, "s", "t0000", epoch))


def state(tmp_path: Path, tokens: int) -> LocalState:
    folder = tmp_path / f"local-{tokens}"
    folder.mkdir()
    (folder / "state").write_text(f"after {tokens} tokens")
    return LocalState(folder, tokens, busy_seconds=tokens / 100)


def names(store: Store) -> list[str]:
    return store.backend.children(store.layout.checkpoints("s", "t0000"))


def take_over(store: Store, epoch: int) -> None:
    store.create_json(store.layout.lease("s", "t0000", epoch), {"holder": "other"})


def test_a_state_counts_once_it_is_complete_and_its_folder_goes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(store, monkeypatch)
    travelling, local = uploads(store), state(tmp_path, 100)
    travelling.offer(local)
    assert gate.come.wait(WITHIN_S)
    assert travelling.take_complete() is None
    assert not travelling.settle(within_s=0.01)
    gate.open.set()
    assert travelling.settle(WITHIN_S)
    complete = travelling.take_complete()
    assert complete is not None
    assert (complete.tokens, complete.busy_seconds) == (100, 1.0)
    assert travelling.take_complete() is None, "told once"
    assert not local.folder.exists()
    assert Checkpoints(store, "s", "t0000").fetch_newest(tmp_path / "back") is not None


def test_of_those_that_wait_only_the_newest_travels(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(store, monkeypatch)
    travelling = uploads(store)
    first, overtaken, newest = (state(tmp_path, tokens) for tokens in (100, 200, 300))
    travelling.offer(first)
    assert gate.come.wait(WITHIN_S)
    travelling.offer(overtaken)
    travelling.offer(newest)
    assert not overtaken.folder.exists()
    gate.open.set()
    assert travelling.settle(WITHIN_S)
    assert [int(name.partition("-")[0]) for name in names(store)] == [100, 300]


def test_a_failed_upload_is_tried_again_with_the_next_state(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(local: Path, key: str) -> None:
        raise StoreError(f"no {key} from {local}")

    travelling = uploads(store)
    with monkeypatch.context() as broken:
        broken.setattr(store.backend, "upload", refuse)
        travelling.offer(state(tmp_path, 100))
        assert travelling.settle(WITHIN_S)
    travelling.raise_if_failed()
    assert travelling.take_complete() is None
    assert "checkpoint at 100 tokens was not uploaded" in caplog.text
    travelling.offer(state(tmp_path, 200))
    assert travelling.settle(WITHIN_S)
    complete = travelling.take_complete()
    assert complete is not None
    assert complete.tokens == 200


def test_a_store_that_takes_nothing_in_is_told_to_the_trial_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(local: Path, key: str) -> None:
        raise NotWritable(f"the disk is full: {key} from {local}")

    monkeypatch.setattr(store.backend, "upload", full)
    travelling = uploads(store)
    travelling.offer(state(tmp_path, 100))
    assert travelling.settle(WITHIN_S)
    with pytest.raises(NotWritable, match="the disk is full"):
        travelling.raise_if_failed()
    travelling.raise_if_failed()


def test_a_lease_lost_while_a_state_travels_keeps_it_from_counting(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(store, monkeypatch)
    travelling = uploads(store, epoch=1)
    travelling.offer(state(tmp_path, 100))
    assert gate.come.wait(WITHIN_S)
    take_over(store, epoch=2)
    gate.open.set()
    assert travelling.settle(WITHIN_S)
    with pytest.raises(TrialLost, match="taken over"):
        travelling.raise_if_failed()
    assert travelling.take_complete() is None
    assert names(store) == [], "what was uploaded of it is removed"


def test_what_is_abandoned_never_counts_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(store, monkeypatch)
    travelling = uploads(store)
    first, waiting = state(tmp_path, 100), state(tmp_path, 200)
    travelling.offer(first)
    assert gate.come.wait(WITHIN_S)
    travelling.offer(waiting)
    travelling.abandon(within_s=0.01)
    assert not waiting.folder.exists()
    gate.open.set()
    travelling.abandon(WITHIN_S)
    assert names(store) == []
    assert not first.folder.exists()
    travelling.raise_if_failed()


# Checkpoints in the store


def save(store: Store, tmp_path: Path, tokens: int, epoch: int = 1) -> None:
    local = state(tmp_path, tokens)
    assert Checkpoints(store, "s", "t0000").save(local.folder, tokens, epoch)


def test_the_newest_two_complete_ones_are_kept(store: Store, tmp_path: Path) -> None:
    for tokens in (100, 200, 300, 400):
        save(store, tmp_path, tokens)
    assert [int(name.partition("-")[0]) for name in names(store)] == [300, 400]


def test_a_damaged_newest_one_costs_one_interval_and_is_not_kept_for_it(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for tokens in (100, 200):
        save(store, tmp_path, tokens)
    newest = store.layout.checkpoint("s", "t0000", 200, 1)
    store.backend.put(f"{newest}state", b"after 2")
    resumed = Checkpoints(store, "s", "t0000")
    found = resumed.fetch_newest(tmp_path / "back")
    assert found is not None
    assert found[1] == 100
    assert (found[0] / "state").read_text() == "after 100 tokens"
    assert "going back to the one before" in caplog.text
    resumed.save(state(tmp_path, 150).folder, 150, 2)
    resumed.save(state(tmp_path, 170).folder, 170, 2)
    kept = [int(name.partition("-")[0]) for name in names(store)]
    assert 150 in kept
    assert 170 in kept
    assert resumed.fetch_newest(tmp_path / "again") is not None


def test_the_next_holder_removes_uploads_that_were_cut_off(store: Store, tmp_path: Path) -> None:
    save(store, tmp_path, 100, epoch=1)
    store.backend.put(store.layout.checkpoint("s", "t0000", 200, 1) + "state", b"half")
    store.backend.put(store.layout.checkpoint("s", "t0000", 250, 2) + "state", b"its own")
    Checkpoints(store, "s", "t0000").remove_cut_off(epoch=2)
    assert names(store) == ["000000000000100-000001", "000000000000250-000002"]


def test_what_is_no_checkpoint_is_left_alone(store: Store, tmp_path: Path) -> None:
    store.backend.put(store.layout.checkpoints("s", "t0000") + "notes/readme", b"a user's")
    save(store, tmp_path, 100)
    assert Checkpoints(store, "s", "t0000").fetch_newest(tmp_path / "back") is not None
    assert "notes" in names(store)
