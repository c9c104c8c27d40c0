"""Who is there can be told from the store, by two writers that never conflict."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from orchestrator.nodes.presence import Presence
from orchestrator.nodes.quarantine import (
    host_standing,
    hosts_kept_out,
    keep_out,
    note_failure,
    note_success,
    release,
)
from orchestrator.nodes.records import NodeSide, read_node, read_nodes, write_side
from orchestrator.nodes.stages import Mark, last_attempt, parse_lines, standing
from orchestrator.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def test_a_node_is_seen_while_it_is_there(store: Store) -> None:
    with Presence(store, "serve-a", every_s=0.05) as presence:
        presence.say(slots=3, sweeps=("one", "two"))
        presence.mark("ray", "127.0.0.1:6379")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and [r.newest.slots for r in read_nodes(store)] != [3]:
            time.sleep(0.05)
        (seen,) = read_nodes(store)
        assert (seen.id, seen.newest.slots, seen.newest.sweeps) == ("serve-a", 3, ("one", "two"))
        assert [mark.stage for mark in seen.marks] == ["ray"]
        assert seen.is_fresh()
    assert read_nodes(store) == []


def test_both_sides_make_one_record(store: Store) -> None:
    starter = NodeSide(id="n", host="h", marks=(Mark("asked", 1.0), Mark("script", 5.0, "h")))
    write_side(store, "starter", starter)
    write_side(store, "self", NodeSide(id="n", host="h", marks=(Mark("ray", 9.0, "h"),)))
    record = read_node(store, "n")
    assert record is not None
    assert [mark.stage for mark in record.marks] == ["asked", "script", "ray"]
    assert not record.is_fresh(now=time.time() + 120)


def test_what_cannot_be_read_is_passed_over(store: Store) -> None:
    store.backend.put(store.layout.node_self("broken"), b"{")
    assert read_nodes(store) == []


def test_lines_of_a_script_and_a_start_that_began_anew() -> None:
    text = "100.0 h asked\n101 h script\n garbage\n102 h environment python 3.11\n150 h script\n15"
    marks = parse_lines(text)
    assert [mark.stage for mark in marks] == ["asked", "script", "environment", "script"]
    assert marks[2].detail == "python 3.11"
    assert parse_lines(marks[2].to_line()) == [marks[2]]
    attempt = last_attempt(marks)
    assert [(mark.stage, mark.at) for mark in attempt] == [("asked", 100.0), ("script", 150.0)]
    stands = standing(attempt)
    assert stands.waits_for == "environment"
    assert not stands.is_overdue(now=200.0)
    assert stands.is_overdue(now=150.0 + 901.0)


def test_three_fast_failures_keep_a_host_out_until_released(store: Store) -> None:
    for number in range(2):
        assert not note_failure(store, "bad", f"no device ({number})").is_kept_out
    note_success(store, "bad")
    threads = [threading.Thread(target=note_failure, args=(store, "bad", f"{n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [standing.host for standing in hosts_kept_out(store)] == ["bad"]
    assert "3 fast failures" in host_standing(store, "bad").why
    assert release(store, "bad")
    assert not release(store, "bad")
    assert hosts_kept_out(store) == []
    assert keep_out(store, "worse", "no CUDA").is_kept_out
