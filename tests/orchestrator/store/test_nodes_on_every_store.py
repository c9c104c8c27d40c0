"""Records of nodes and quarantines on every place that a store can be."""

from __future__ import annotations

import time

from orchestrator.nodes.presence import Presence
from orchestrator.nodes.quarantine import host_standing, note_failure, note_success, release
from orchestrator.nodes.records import NodeSide, read_node, read_nodes, write_side
from orchestrator.nodes.stages import Mark
from orchestrator.store import Store
from orchestrator.view.nodes_rows import NodesSnapshot


def test_a_node_is_known_while_it_is_there(store: Store) -> None:
    starter = NodeSide(id="n", kind="slurm", host="n2", marks=(Mark("script", 5.0, "n2"),))
    write_side(store, "starter", starter)
    with Presence(store, "n", "slurm", every_s=0.05) as presence:
        presence.mark("environment")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            record = read_node(store, "n")
            if record is not None and record.itself is not None and record.itself.marks:
                break
            time.sleep(0.05)
        (record,) = read_nodes(store)
        assert [mark.stage for mark in record.marks] == ["script", "environment"]
        assert record.is_fresh()
    (left,) = read_nodes(store)
    assert left.itself is None and left.starter is not None


def test_a_quarantine_holds_until_it_is_lifted(store: Store) -> None:
    note_failure(store, "box", "a")
    note_success(store, "box")
    for what in ("a", "b", "c"):
        note_failure(store, "box", what)
    assert [standing.host for standing in NodesSnapshot.read(store).kept_out] == ["box"]
    assert release(store, "box") and not host_standing(store, "box").is_kept_out
