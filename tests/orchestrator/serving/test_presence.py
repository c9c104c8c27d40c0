"""Who serves a store can be told from the store, and nothing depends on it."""

from __future__ import annotations

import time
from pathlib import Path

from orchestrator.serving.presence import Presence, servers
from orchestrator.store import Store


def test_a_server_is_seen_while_it_is_there(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with Presence(store, "serve-a", every_s=0.05) as presence:
        presence.say(3, ["one", "two"])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and [s.slots for s in servers(store)] != [3]:
            time.sleep(0.05)
        (seen,) = servers(store)
        assert (seen.id, seen.slots, seen.sweeps) == ("serve-a", 3, ("one", "two"))
    assert servers(store) == []


def test_one_that_went_silent_is_not_counted(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    said = {"host": "h", "pid": 1, "since": 0.0, "at": 1000.0, "slots": 1, "sweeps": []}
    store.write_json(store.layout.node("serve-b"), said)
    assert [s.id for s in servers(store, now=1030.0)] == ["serve-b"]
    assert servers(store, now=1100.0) == []


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.backend.put(store.layout.node("serve-c"), b"{")
    assert servers(store) == []
