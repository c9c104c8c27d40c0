"""Servers that fail for a moment are survived, and those that fail for long are named."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import KeyMissing, NotWritable, Store, Unreachable
from orchestrator.store.s3 import S3Backend
from orchestrator.store.s3_place import S3Place
from tests.orchestrator.store.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.orchestrator.store.servers import S3Server

pytestmark = pytest.mark.slow

BIG_BYTES = 40 * 2**20
PATIENT_S, HASTY_S = 60.0, 6.0


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(seaweedfs.endpoint) as proxy:
        yield proxy


def opened(seaweedfs: S3Server, proxy: FaultProxy, deadline_s: float) -> S3Backend:
    url = seaweedfs.url(f"faults/{uuid.uuid4().hex}", proxy.endpoint)
    backend = S3Backend(S3Place.parse(f"{url}&deadline_s={deadline_s:g}"))
    backend.put("first", b"contact")
    return backend


@pytest.fixture
def backend(seaweedfs: S3Server, proxy: FaultProxy) -> S3Backend:
    """Past the proxy."""
    return opened(seaweedfs, proxy, PATIENT_S)


@pytest.fixture
def hasty(seaweedfs: S3Server, proxy: FaultProxy) -> S3Backend:
    return opened(seaweedfs, proxy, HASTY_S)


BRIEF = [fault for fault in Fault if fault is not Fault.HANG]


@pytest.mark.parametrize("fault", BRIEF)
def test_every_operation_survives_two_faults(
    backend: S3Backend, proxy: FaultProxy, fault: Fault, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(b"file" * 1000)
    proxy.fail(fault, times=2)
    backend.put("a", b"1" * 1000)
    proxy.fail(fault, times=2)
    assert backend.get("a") == b"1" * 1000
    proxy.fail(fault, times=2)
    assert backend.create("b", b"2" * 1000)
    proxy.fail(fault, times=2)
    assert not backend.create("a", b"lost")
    proxy.fail(fault, times=2)
    data, version = backend.get_versioned("b")
    proxy.fail(fault, times=2)
    assert backend.compare_and_swap("b", b"3" * 1000, version)
    proxy.fail(fault, times=2)
    assert not backend.compare_and_swap("b", b"stale", version)
    for line in (b"one\n", b"two\n"):
        proxy.fail(fault, times=2)
        backend.append("log", line)
    proxy.fail(fault, times=2)
    backend.upload(tmp_path / "up", "c")
    proxy.fail(fault, times=2)
    backend.download("c", tmp_path / "down")
    proxy.fail(fault, times=2)
    assert [entry.key for entry in backend.entries("")] == ["a", "b", "c", "first", "log"]
    proxy.fail(fault, times=2)
    with pytest.raises(KeyMissing):
        backend.get("missing")
    proxy.fail(fault, times=2)
    with pytest.raises(KeyMissing):
        backend.download("missing", tmp_path / "nothing")
    proxy.fail(fault, times=2)
    backend.delete_prefix("")
    proxy.mend()
    assert (data, list(backend.entries(""))) == (b"2" * 1000, [])
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


def test_a_hanging_server_is_asked_again(seaweedfs: S3Server, proxy: FaultProxy) -> None:
    backend = opened(seaweedfs, proxy, 12.0)
    proxy.fail(Fault.HANG, times=1)
    assert backend.create("a", b"1")
    proxy.fail(Fault.HANG, times=1)
    assert backend.get("a") == b"1"


@pytest.mark.parametrize("fault", [Fault.CUT_UPLOAD, Fault.DROP_ANSWER, Fault.SLOW_DOWN])
def test_a_big_file_arrives_whole_through_a_bad_connection(
    backend: S3Backend, proxy: FaultProxy, fault: Fault, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(BIG_BYTES)
    (tmp_path / "up").write_bytes(data)
    proxy.fail(fault, times=8, share=0.6)
    backend.upload(tmp_path / "up", "big")
    proxy.fail(Fault.CUT_DOWNLOAD, times=3, share=0.6)
    backend.download("big", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir() if ".~" in path.name] == []


@pytest.mark.parametrize("fault", list(Fault))
def test_a_server_that_fails_for_long_is_unreachable_after_the_deadline(
    hasty: S3Backend, proxy: FaultProxy, fault: Fault, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(b"x" * 1000)
    hasty.put("a", b"old")
    proxy.fail(fault)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"does not answer: .*; tried \d+ times in \d+ s. See to"):
        if fault is Fault.CUT_DOWNLOAD:
            hasty.get("a")
        else:
            hasty.put("a", b"new")
    assert time.monotonic() - began < 10 * HASTY_S
    if fault in (Fault.ERROR_500, Fault.CUT_UPLOAD):
        with pytest.raises(Unreachable):
            hasty.upload(tmp_path / "up", "b")
    proxy.mend()
    assert hasty.get("a") in ((b"new",) if fault is Fault.DROP_ANSWER else (b"old", b"new"))
    hasty.put("a", b"newer")
    assert hasty.get("a") == b"newer"


def test_nothing_listening_is_said_sooner_when_it_never_did(seaweedfs: S3Server) -> None:
    del seaweedfs  # its credentials are in the environment
    store = Store.open("s3://nowhere/x?endpoint_url=http://127.0.0.1:1&deadline_s=2")
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:1"):
        store.backend.exists("a")
    assert issubclass(Unreachable, NotWritable), "its trials go back to the queue"


# A conditional write whose answer was lost


def test_who_created_and_lost_the_answer_is_told_that_he_won(
    backend: S3Backend, proxy: FaultProxy
) -> None:
    proxy.fail(Fault.DROP_ANSWER, times=1)
    assert backend.create("claim", b"mine")
    assert not backend.create("claim", b"mine")
    assert proxy.done[Fault.DROP_ANSWER] == 1


def test_who_swapped_and_lost_the_answer_is_told_so_even_when_others_swapped_since(
    backend: S3Backend, proxy: FaultProxy, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = S3Backend(S3Place.parse(f"{backend.place.root}?endpoint_url={seaweedfs.endpoint}"))
    backend.put("a", b"1")
    _, version = backend.get_versioned("a")

    def others_come_by(seconds: float) -> None:
        del seconds
        for turn in range(3):
            data, newer = other.get_versioned("a")
            assert other.compare_and_swap("a", data + b"%d" % turn, newer)

    monkeypatch.setattr("orchestrator.store.s3_calls.time.sleep", others_come_by)
    proxy.fail(Fault.DROP_ANSWER, times=1)
    assert backend.compare_and_swap("a", b"2", version)
    assert backend.get("a") == b"2012"


def test_who_lost_a_race_behind_a_lost_answer_is_told_that_he_lost(
    backend: S3Backend, proxy: FaultProxy, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = S3Backend(S3Place.parse(f"{backend.place.root}?endpoint_url={seaweedfs.endpoint}"))

    def another_is_quicker(seconds: float) -> None:
        del seconds
        other.create("claim", b"other")

    monkeypatch.setattr("orchestrator.store.s3_calls.time.sleep", another_is_quicker)
    proxy.fail(Fault.CUT_UPLOAD, times=1)
    assert not backend.create("claim", b"mine" * 100)
    assert backend.get("claim") == b"other"


def test_no_line_is_lost_or_doubled_when_answers_are(backend: S3Backend, proxy: FaultProxy) -> None:
    proxy.fail(Fault.DROP_ANSWER, Fault.CUT_UPLOAD, Fault.SLOW_DOWN, share=0.4)
    for number in range(20):
        backend.append("log", b"line %d\n" % number)
    proxy.mend()
    assert backend.get("log") == b"".join(b"line %d\n" % number for number in range(20))
