"""The store's check: races are really run, nothing stays behind, old servers are found out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.doctor.base import Finding
from orchestrator.doctor.examination import examine, impatient
from orchestrator.doctor.store import StoreCheck
from orchestrator.store import Store
from orchestrator.store.folder import FolderBackend
from tests.orchestrator.doctor.old_s3 import old_s3
from tests.orchestrator.store.servers import S3Server, moto_server, s3_server


def looked(store: Store) -> tuple[Finding, ...]:
    [found] = examine(impatient(store), [StoreCheck])
    return found.findings


def text(findings: tuple[Finding, ...], level: str) -> str:
    return " | ".join(f"{f.what} -> {f.way_out}" for f in findings if f.level == level)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "store" / "queue").mkdir(parents=True)
    return tmp_path / "store"


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_is_well_and_left_as_it_was(folder: Path) -> None:
    before = tree(folder.parent)
    findings = looked(Store.open(str(folder)))
    assert {finding.level for finding in findings} == {"ok"}
    assert "one winner in each of 8 races" in text(findings, "ok")
    assert tree(folder.parent) == before


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    findings = looked(Store.open(str(tmp_path / "a" / "b")))
    assert "is not there yet, and can be made" in text(findings, "note")
    assert tree(tmp_path) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_a_fault(folder: Path) -> None:
    folder.chmod(0o555)
    assert "Permission denied" in text(looked(Store.open(str(folder))), "fault")


class Forgetful(FolderBackend):
    """A file system without links and locks."""

    def create(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class Lazy(FolderBackend):
    """Nobody ever wins a swap."""

    def compare_and_swap(self, key: str, data: bytes, version: str) -> bool:
        del key, data, version
        return False


class Slipping(FolderBackend):
    """The loser's bytes are what stays."""

    def create(self, key: str, data: bytes) -> bool:
        won = super().create(key, data)
        if not won:
            self.put(key, data)
        return won


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (Forgetful, "exclusive create: of two writers at once both won"),
        (Lazy, "compare-and-swap: of two writers at once nobody won"),
    ],
)
def test_a_file_system_that_cannot_decide_a_race_is_a_fault(
    folder: Path, backend: type[FolderBackend], words: str
) -> None:
    fault = text(looked(Store(backend(folder), str(folder))), "fault")
    assert words in fault
    assert "two machines could run the same trial" in fault


def test_the_losers_bytes_are_noticed(folder: Path) -> None:
    fault = text(looked(Store(Slipping(folder), str(folder))), "fault")
    assert "the loser's bytes are there" in fault


def test_a_clock_that_differs_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_put = FolderBackend.put

    def put(self: FolderBackend, key: str, data: bytes) -> None:
        real_put(self, key, data)
        path = self.path(key)
        os.utime(path, (path.stat().st_mtime - 600,) * 2)

    monkeypatch.setattr(FolderBackend, "put", put)
    warning = text(looked(Store.open(str(folder))), "warning")
    assert "600 s ahead of the store's" in warning or "601 s ahead of the store's" in warning


# S3


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.usefixtures("credentials")
def test_a_server_that_refuses_conditional_writes_is_a_fault() -> None:
    with old_s3(refuses=True) as (endpoint, objects):
        store = Store.open(f"s3://b/some?endpoint_url={endpoint}")
        fault = text(looked(store), "fault")
        assert objects == {}
    assert "cannot write on condition" in fault
    assert "If-None-Match" in fault


@pytest.mark.usefixtures("credentials")
def test_a_server_that_looks_past_the_condition_is_a_fault() -> None:
    with old_s3(refuses=False) as (endpoint, _):
        fault = text(looked(Store.open(f"s3://b/some?endpoint_url={endpoint}")), "fault")
    assert "exclusive create: of two writers at once both won" in fault
    assert "use a server with conditional writes" in fault


@pytest.mark.usefixtures("credentials")
def test_nobody_there_is_a_fault_that_names_the_endpoint() -> None:
    store = Store.open("s3://b/some?endpoint_url=http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in text(looked(store), "fault")


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


def test_missing_credentials_and_buckets_are_faults_in_words(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    fault = text(looked(Store.open(f"s3://no-such/a?endpoint_url={moto.endpoint}")), "fault")
    assert "has no bucket" in fault
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    fault = text(
        looked(Store.open(f"s3://{moto.bucket}/other?endpoint_url={moto.endpoint}")), "fault"
    )
    assert "needs credentials" in fault
    assert "AWS_ACCESS_KEY_ID" in fault


@pytest.mark.slow
def test_a_real_server_is_well_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        findings = looked(Store.open(server.url("a/prefix")))
        left = server.client().list_objects_v2(Bucket=server.bucket).get("KeyCount", 0)
    assert {finding.level for finding in findings} <= {"ok", "warning"}, findings  # slow, perhaps
    assert "one winner in each of 8 races" in text(findings, "ok")
    assert left == 0
