"""`saeq nodes` and a `saeq serve` that is kept out, as a user types them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from orchestrator.nodes.quarantine import keep_out
from orchestrator.nodes.records import NodeSide, read_nodes, write_side
from orchestrator.nodes.stages import Mark
from orchestrator.store import Store
from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.cli.test_cli_look import SWEEP


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SAEQ_NODE_HOST", "box")
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    return Store.open(str(tmp_path / "store"))


def test_an_empty_store_says_how_to_begin(saeq: Saeq, store: Store) -> None:
    del store
    code, out, _ = saeq("nodes")
    assert code == 0 and "no node has been heard of; `saeq serve`" in out
    code, out, _ = saeq("nodes", "--json")
    assert json.loads(out) == {"nodes": [], "quarantine": [], "waiting_trials": 0, "why": ""}


def test_a_table_for_people_and_an_object_for_programs(
    saeq: Saeq, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "demo.yaml").write_text(SWEEP)
    assert saeq("submit", "demo.yaml")[0] == 0
    mark = Mark("script", time.time() - 1000, "n2")
    write_side(store, "starter", NodeSide(id="job-7", kind="slurm", host="n2", marks=(mark,)))
    write_side(store, "self", NodeSide(id="gone", marks=(Mark("ended", time.time()),)))
    keep_out(store, "n9", "GPU 1: 3 uncorrectable ECC errors")
    code, out, _ = saeq("nodes")
    assert code == 0
    assert "starting, late" in out and "gone" not in out
    assert "quarantine n9" in out
    assert "trials wait and no node works: job-7: script started 17 min ago on n2" in out
    assert "gone" in saeq("nodes", "--all")[1]
    told = json.loads(saeq("nodes", "--json")[1])
    assert [node["node"] for node in told["nodes"]] == ["job-7"]
    assert told["quarantine"][0]["host"] == "n9" and told["waiting_trials"] == 16
    assert told["why"].startswith("16 trials wait")


def test_a_host_is_released_by_name(saeq: Saeq, store: Store) -> None:
    keep_out(store, "n9", "no CUDA")
    code, _, err = saeq("nodes", "--release", "n8")
    assert code == 2 and "--release n8: that host is not in quarantine; in quarantine: n9" in err
    code, out, _ = saeq("nodes", "--release", "n9")
    assert code == 0 and "host n9 may work again (it was kept out: no CUDA)" in out
    assert "quarantine" not in saeq("nodes")[1]


def test_serve_is_refused_on_a_host_in_quarantine(saeq: Saeq, store: Store) -> None:
    keep_out(store, "box", "3 fast failures; the last: no kernel image")
    code, _, err = saeq("serve", "--until-idle", "--plain")
    assert code == 1
    assert "host box is in quarantine since" in err and "no kernel image" in err
    assert "saeq nodes --release box" in err
    code, out, _ = saeq("serve", "--until-idle", "--plain", "--anyway")
    assert code == 0 and "nothing is left that can be worked on" in out


def test_serve_is_refused_on_a_machine_that_is_not_fit(
    saeq: Saeq, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'no devices of ours'\nexit 9\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code, _, err = saeq("serve", "--until-idle", "--plain")
    assert code == 1
    assert "host box is not fit for trials: the GPU driver does not answer: nvidia-smi ended" in err
    (left,) = read_nodes(store)
    assert left.failure is not None and left.failure.stage == "probe"
    out = saeq("nodes")[1]
    assert "failed" in out and "quarantine box" in out
    monkeypatch.setenv("SAEQ_SERVE_ANYWAY", "1")
    code, out, _ = saeq("serve", "--until-idle", "--plain")
    assert code == 0 and "serving anyway: the GPU driver does not answer" in out
