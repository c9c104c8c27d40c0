"""Machine, versions, hub, Ray, nodes, queue and what is left over."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.doctor.base import Check, Finding
from orchestrator.doctor.hub import Hub
from orchestrator.doctor.machine import Machine
from orchestrator.doctor.nodes import Nodes
from orchestrator.doctor.queue import QueueCheck
from orchestrator.doctor.ray_cluster import RayCluster
from orchestrator.doctor.rubbish import Rubbish
from orchestrator.doctor.versions import wrong_version
from orchestrator.nodes.presence import Presence
from orchestrator.nodes.quarantine import keep_out
from orchestrator.nodes.records import Failure, NodeSide, write_side
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store

SWEEP = """
name: waiting
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 4096
space: {architecture: topk, d_sae: 64, k: {choice: [2, 4]}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def looked(check: type[Check], store: Store) -> list[Finding]:
    return list(check().look(store))


def text(findings: list[Finding], level: str) -> str:
    return " | ".join(f"{f.what} -> {f.way_out}" for f in findings if f.level == level)


# Machine


def test_a_machine_is_described(store: Store) -> None:
    words = text(looked(Machine, store), "ok")
    assert f"Python {platform.python_version()}" in words
    assert "core" in words


def test_few_open_files_are_a_warning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 65536))
    warning = text(looked(Machine, store), "warning")
    assert "only 1024 open files" in warning
    assert "ulimit -n 65536" in warning


def test_a_disk_that_is_nearly_full_is_told_with_all_that_is_on_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "not" / "there"))
    real = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=100 * 2**20))
    fault = text(looked(Machine, store), "fault")
    assert "only 100 MiB of disk free for " in fault
    assert "SAEQ_CACHE" in fault


# Versions


@pytest.mark.parametrize(
    ("requirement", "is_wrong"),
    [
        ("pydantic>=2.11", False),
        ("pydantic>=99", True),
        ("pydantic<2", True),
        ("ray[tune]==2.60.0", False),
        ("ray[tune]==2.59.0", True),
        ("no-such-thing>=1", True),
        ('no-such-thing>=1; extra == "s3"', False),
        ("sae-lens<7,>=6.54.12", False),
    ],
)
def test_versions_are_compared_with_what_is_asked(requirement: str, is_wrong: bool) -> None:
    assert (wrong_version(requirement) is not None) is is_wrong


def test_a_wrong_version_says_how_to_mend_it() -> None:
    fault = wrong_version("ray[tune]==2.59.0")
    assert fault is not None
    assert fault.what == "ray 2.60.0 is installed; saeq needs ray==2.59.0"
    assert fault.way_out == "pip install 'ray==2.59.0'"


# Hub


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hf"


def test_offline_is_a_note_and_asks_nobody(store: Store, hub_home: Path) -> None:
    (hub_home / "hub" / "models--a--b").mkdir(parents=True)
    findings = looked(Hub, store)
    assert "HF_HUB_OFFLINE is set" in text(findings, "note")
    assert "1 models and 0 data sets" in text(findings, "ok")
    assert "no token" in text(findings, "note")


@pytest.mark.usefixtures("hub_home")
def test_a_token_is_mentioned_and_not_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret_of_a_test")
    findings = looked(Hub, store)
    assert "a token is in HF_TOKEN" in text(findings, "ok")
    assert "planted" not in str(findings)


@pytest.mark.usefixtures("hub_home")
def test_a_hub_that_is_away_is_a_note(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "127.0.0.1 cannot be reached" in text(looked(Hub, store), "note")


# Ray


@contextmanager
def listener() -> Iterator[int]:
    """Somebody who takes connections and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    server.accept()[0].close()
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def test_no_cluster_is_well(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "commands start a local Ray" in text(looked(RayCluster, store), "ok")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense"])
def test_a_cluster_that_is_not_there_is_a_fault(
    address: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert address in text(looked(RayCluster, store), "fault")


@pytest.mark.slow
def test_something_else_on_that_port_is_a_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doctor.ray_cluster.ASK_WITHIN_S", 6.0)
    with listener() as port:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        assert "but not as Ray does" in text(looked(RayCluster, store), "fault")


# Nodes and queue


def test_an_empty_store_has_no_nodes_and_no_work(store: Store) -> None:
    assert text(looked(Nodes, store), "ok").startswith("no node works for this store now")
    assert text(looked(QueueCheck, store), "ok").startswith("no sweep is left to work on")
    assert {finding.level for finding in looked(Rubbish, store)} == {"ok"}


def test_hosts_that_are_kept_out_and_failed_starts_are_warnings(store: Store) -> None:
    keep_out(store, "bad-host", "GPU 3: 2 uncorrectable ECC errors")
    now = time.time()
    write_side(
        store,
        "starter",
        NodeSide(
            id="slurm-7",
            kind="slurm",
            host="n7",
            since=now,
            failure=Failure(stage="environment", why="no module named ray", at=now),
        ),
    )
    warnings = text(looked(Nodes, store), "warning")
    assert "host bad-host has been kept out" in warnings
    assert "ECC" in warnings
    assert "node slurm-7 failed: no module named ray" in warnings


def test_a_sweep_that_nobody_works_on_is_a_warning_with_the_way_out(store: Store) -> None:
    Queue(store).submit(parse_sweep(SWEEP), SWEEP)
    warnings = text(looked(QueueCheck, store), "warning")
    assert "waiting is queued: nobody has begun" in warnings
    assert "no node is there to work on them -> saeq serve" in warnings


def test_a_node_that_is_there_makes_waiting_a_note(store: Store) -> None:
    Queue(store).submit(parse_sweep(SWEEP), SWEEP)
    with Presence(store, "serve-of-a-test", every_s=0.1):
        deadline = time.monotonic() + 30
        while not store.backend.children(store.layout.nodes) and time.monotonic() < deadline:
            time.sleep(0.05)
        findings = looked(QueueCheck, store)
    assert "waiting is queued" in text(findings, "note")
    assert "no node is there" not in text(findings, "warning")


def test_what_nothing_refers_to_is_a_note(store: Store) -> None:
    key = "artefacts/sae/gone-t0001/weights.safetensors"
    store.backend.put(key, b"x" * 1000)
    path = Path(store.url) / key
    os.utime(path, (path.stat().st_mtime - 7200,) * 2)
    assert "1 left over, 1000 B" in text(looked(Rubbish, store), "note")


HOLD_A_CLUSTER = """
import sys, ray
context = ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@contextmanager
def a_cluster(auth_mode: str) -> Iterator[str]:
    """The address of a Ray that lives in a process of its own."""
    environment = {**os.environ, "RAY_AUTH_MODE": auth_mode, "RAY_AUTH_TOKEN": "t" * 64}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as host:
        assert host.stdout is not None
        yield host.stdout.readline().strip()
        host.communicate(timeout=60)  # closes its standard input, at which it ends


@pytest.mark.slow
def test_a_cluster_of_the_same_versions_is_well_and_of_others_a_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doctor.ray_cluster.ASK_WITHIN_S", 60.0)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with a_cluster("disabled") as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert "runs Ray 2.60.0" in text(looked(RayCluster, store), "ok")
        monkeypatch.setattr(platform, "python_version", lambda: "3.99.1")
        fault = text(looked(RayCluster, store), "fault")
    assert "this machine Ray 2.60.0 on Python 3.99.1" in fault


@pytest.mark.slow
def test_a_cluster_with_another_token_is_a_fault_with_the_way_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doctor.ray_cluster.ASK_WITHIN_S", 60.0)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with a_cluster("token") as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        fault = text(looked(RayCluster, store), "fault")
    assert "asks for a token" in fault
    assert "RAY_AUTH_TOKEN" in fault
