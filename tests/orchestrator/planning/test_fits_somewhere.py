"""A sweep that fits no machine of those who serve is refused at submit, with the numbers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.nodes.records import NodeSide, write_side
from orchestrator.planning.devices import GPUS
from orchestrator.planning.fits_somewhere import (
    FitsNoNodeType,
    NoSuchDevice,
    refuse_what_nobody_takes,
    served_shapes,
)
from orchestrator.planning.node_types import ClusterShape, NodeType
from orchestrator.store import Store
from tests.orchestrator.planning.test_placement import gpu_type, spec

TINY = gpu_type("tiny", "T4-16", max_workers=4)
LARGE = gpu_type("large", "A100-80", max_workers=1)
CORES = NodeType(name="box", resources={"CPU": 8}, num_up=1, cpu_bytes=2**40)


def served(*types: NodeType) -> list[ClusterShape]:
    return [ClusterShape(types=types)]


def test_what_one_type_takes_is_accepted() -> None:
    assert refuse_what_nobody_takes(spec(), served(TINY, LARGE)) == ""
    assert refuse_what_nobody_takes(spec(), [*served(TINY), *served(LARGE)]) == ""


def test_what_fits_none_is_refused_with_the_numbers_the_largest_first() -> None:
    small = gpu_type("small", "L4-24", max_workers=1)
    tight = [t.model_copy(update={"name": n}) for t, n in ((TINY, "a"), (TINY, "b"))]
    with pytest.raises(FitsNoNodeType) as told:
        refuse_what_nobody_takes(spec(), served(*tight))
    said = str(told.value)
    assert "a (T4-16) has 13.8 GiB, b (T4-16) has 13.8 GiB" in said
    assert "d_sae=16384" in said
    assert "--anyway" in said
    assert refuse_what_nobody_takes(spec(), served(*tight, small)) == ""


def test_a_device_that_nobody_has_is_refused_by_name() -> None:
    with pytest.raises(NoSuchDevice, match="device: cuda was asked for.*box.*--anyway"):
        refuse_what_nobody_takes(spec(device="cuda"), served(CORES))
    assert refuse_what_nobody_takes(spec(device="cpu"), served(CORES)) == ""


def test_a_guess_refuses_nothing() -> None:
    guessed = TINY.model_copy(update={"gpu_basis": "guessed"})
    note = refuse_what_nobody_takes(spec(), served(guessed))
    assert "nobody knows the memory of tiny" in note
    assert "saeq-instance-type" in note


def test_only_those_count_who_serve_now(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert served_shapes(store) is None
    takes = (LARGE.model_dump(mode="json"),)
    write_side(store, "self", NodeSide(id="watcher", kind="cluster"))
    assert served_shapes(store) is None, "a watcher of a node serves nobody"
    write_side(store, "self", NodeSide(id="starting", kind="serve"))
    assert served_shapes(store) == [], "it has not said yet what it takes"
    write_side(store, "self", NodeSide(id="serving", kind="serve", takes=takes))
    write_side(store, "self", NodeSide(id="newer", kind="serve", takes=({"nonsense": 1},)))
    assert served_shapes(store) == [ClusterShape(types=(LARGE,))]
    old = NodeSide(id="serving", takes=takes, at=time.time() - 3600)
    store.write_json(store.layout.node_self("serving"), old.model_dump(mode="json"))
    assert served_shapes(store) == []


def test_the_table_of_devices_is_what_a_type_is_planned_with() -> None:
    assert LARGE.device("cuda").usable_bytes == GPUS["A100-80"].usable_bytes
