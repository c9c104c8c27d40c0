"""What every place to keep bytes promises; a new backend joins by a line in conftest.py."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import Backend, Damaged, KeyMissing, NotWritable, Store, StoreError
from orchestrator.store.folder import FolderBackend

NUM_PROCESSES = 8
NUM_RACES = 10
NUM_BYTES = 8 * 2**20


# One process


def test_what_is_put_is_got_whole_and_from_an_offset(backend: Backend) -> None:
    backend.put("a/b/c", b"0123456789")
    assert backend.get("a/b/c") == b"0123456789"
    assert backend.get("a/b/c", offset=7) == b"789"
    assert backend.get("a/b/c", offset=10) == b""
    backend.put("a/b/c", b"x")
    assert backend.get("a/b/c") == b"x"
    backend.put("a/b/empty", b"")
    assert backend.get("a/b/empty") == b""


def test_a_missing_key_is_named(backend: Backend, tmp_path: Path) -> None:
    for read in (backend.get, backend.get_versioned, lambda k: backend.download(k, tmp_path / "x")):
        with pytest.raises(KeyMissing, match="a/b is not in the store"):
            read("a/b")
    with pytest.raises(KeyMissing):
        backend.compare_and_swap("a/b", b"new", "0")
    assert not backend.exists("a/b")
    assert not (tmp_path / "x").exists()
    backend.delete("a/b")
    backend.delete_prefix("a/")


def test_create_leaves_what_is_there(backend: Backend) -> None:
    assert backend.create("a/b", b"first")
    assert not backend.create("a/b", b"second")
    assert backend.get("a/b") == b"first"
    backend.delete("a/b")
    assert backend.create("a/b", b"third")


def test_a_swap_needs_the_current_version(backend: Backend) -> None:
    backend.put("a", b"1")
    _, version = backend.get_versioned("a")
    assert backend.compare_and_swap("a", b"2", version)
    assert not backend.compare_and_swap("a", b"3", version)
    assert backend.get("a") == b"2"
    backend.delete("a")
    with pytest.raises(KeyMissing):
        backend.compare_and_swap("a", b"4", version)
    assert not backend.exists("a")


def test_an_append_makes_and_grows_an_object(backend: Backend) -> None:
    backend.append("log/w.jsonl", b"one\n")
    backend.append("log/w.jsonl", b"two\n")
    assert backend.get("log/w.jsonl") == b"one\ntwo\n"


def test_listings_are_sorted_and_complete_and_show_no_unfinished_thing(backend: Backend) -> None:
    assert list(backend.entries("a/")) == [] and backend.children("a/") == []
    for key in ("a/c", "a/b/2", "a/b/10", "ab/x", "a/b-1"):
        backend.put(key, key.encode())
    _, version = backend.get_versioned("a/c")
    assert backend.compare_and_swap("a/c", b"swapped", version)
    listed = [(entry.key, entry.num_bytes) for entry in backend.entries("a/")]
    assert listed == [("a/b-1", 5), ("a/b/10", 6), ("a/b/2", 5), ("a/c", 7)]
    assert backend.children("a/") == ["b", "b-1", "c"]
    backend.delete_prefix("a/b/")
    assert [entry.key for entry in backend.entries("a/")] == ["a/b-1", "a/c"]
    assert backend.exists("ab/x")


def test_files_go_up_and_come_down(backend: Backend, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3 * 2**20 + 7)
    (tmp_path / "up").write_bytes(data)
    backend.upload(tmp_path / "up", "big/file")
    backend.download("big/file", tmp_path / "deep" / "down")
    assert (tmp_path / "deep" / "down").read_bytes() == data
    assert os.listdir(tmp_path / "deep") == ["down"]


@pytest.mark.parametrize(
    "key", ["", "/etc/x", "../x", "a/../../x", "a//b", "a/./b", "a/", "a/.~x", "a\0b"]
)
def test_a_key_that_leaves_the_store_or_hides_in_it_is_refused(backend: Backend, key: str) -> None:
    for act in (
        lambda: backend.put(key, b"x"),
        lambda: backend.create(key, b"x"),
        lambda: backend.append(key, b"x"),
        lambda: backend.get(key),
        lambda: backend.delete(key),
    ):
        with pytest.raises(StoreError, match="is not a plain path"):
            act()


# Several processes


def race(
    backend: Backend, me: int, barrier: Any, results: Any, contest: Callable[..., object]
) -> None:
    results.put((me, [contest(backend, me, barrier, turn) for turn in range(NUM_RACES)]))


def create_at_once(backend: Backend, me: int, barrier: Any, turn: int) -> bool:
    barrier.wait()
    return backend.create(f"races/{turn}", str(me).encode() * 1000)


def swap_at_once(backend: Backend, me: int, barrier: Any, turn: int) -> bool:
    key = f"swaps/{turn}"
    backend.create(key, b"old")
    barrier.wait()
    _, version = backend.get_versioned(key)
    barrier.wait()
    return backend.compare_and_swap(key, str(me).encode() * 1000, version)


def count_up(backend: Backend, me: int, barrier: Any, turn: int) -> bool:
    del me, barrier, turn
    backend.create("counter", b"0")
    while True:
        value, version = backend.get_versioned("counter")
        if backend.compare_and_swap("counter", str(int(value) + 1).encode(), version):
            return True


def run_race(backend: Backend, contest: Callable[..., object]) -> dict[int, list[bool]]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(NUM_PROCESSES, timeout=60), context.Queue()
    processes = [
        context.Process(target=race, args=(backend, me, barrier, results, contest))
        for me in range(NUM_PROCESSES)
    ]
    for process in processes:
        process.start()
    won = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return won


def test_of_eight_that_create_at_once_one_wins_every_time(shared_backend: Backend) -> None:
    won = run_race(shared_backend, create_at_once)
    for turn in range(NUM_RACES):
        (winner,) = [me for me in won if won[me][turn]]
        assert shared_backend.get(f"races/{turn}") == str(winner).encode() * 1000
    assert len(list(shared_backend.entries("races/"))) == NUM_RACES


def test_of_eight_that_swap_at_once_one_wins_every_time(shared_backend: Backend) -> None:
    won = run_race(shared_backend, swap_at_once)
    for turn in range(NUM_RACES):
        (winner,) = [me for me in won if won[me][turn]]
        assert shared_backend.get(f"swaps/{turn}") == str(winner).encode() * 1000


def test_no_swap_is_lost(shared_backend: Backend) -> None:
    run_race(shared_backend, count_up)
    assert shared_backend.get("counter") == str(NUM_PROCESSES * NUM_RACES).encode()


# Death in the middle of a write


def write_for_ever(backend: Backend, deed: str, folder: Path, ready: Any) -> None:
    store = Store(backend, "test")
    for turn in range(10_000):
        data = (b"a", b"b")[turn % 2] * NUM_BYTES
        if turn == 1:
            ready.set()
        if deed == "put":
            backend.put("big/object", data)
        elif deed == "create":
            backend.create(f"big/object-{turn}", data)
        else:
            (folder / "weights").write_bytes(data)
            store.put_files(folder, f"sets/{turn:05d}/")


@pytest.mark.parametrize("deed", ["put", "create", "put_files"])
def test_a_writer_that_is_killed_leaves_whole_things_or_none(
    shared_backend: Backend, tmp_path: Path, deed: str
) -> None:
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "cfg.json").write_text("{}")
    for kill in range(4):
        ready = context.Event()
        process = context.Process(target=write_for_ever, args=(shared_backend, deed, folder, ready))
        process.start()
        assert ready.wait(60)
        time.sleep(0.004 + 0.013 * kill)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        check_whole(Store(shared_backend, "test"), tmp_path)
        shared_backend.delete_prefix("sets/")


def check_whole(store: Store, tmp_path: Path) -> None:
    for entry in store.backend.entries("big/"):
        data = store.backend.get(entry.key)
        assert len(data) == entry.num_bytes == NUM_BYTES and len(set(data)) == 1
    complete = 0
    for turn in store.backend.children("sets/"):
        if store.files(f"sets/{turn}/") is not None:
            complete += 1
            found = store.get_files(f"sets/{turn}/", tmp_path / "got")
            assert set(found.files) == {"cfg.json", "weights"}
    assert complete >= len(store.backend.children("sets/")) - 1


# Sets of files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_bytes(random.Random(1).randbytes(5000))
    (folder / "deep" / "cfg.json").write_text('{"k": 32}')
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_set_comes_back_as_it_was_and_one_hash_names_it(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    put = store.put_files(folder, "sets/one/")
    got = store.get_files("sets/one/", tmp_path / "got")
    assert got == put == store.files("sets/one/")
    assert got.sha256 == put.sha256
    for name in put.files:
        assert (tmp_path / "got" / name).read_bytes() == (folder / name).read_bytes()


def test_a_set_without_its_manifest_does_not_count(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    store.put_files(folder, "sets/one/")
    store.backend.delete("sets/one/manifest.json")
    assert store.files("sets/one/") is None
    with pytest.raises(KeyMissing, match="sets/one/manifest.json"):
        store.get_files("sets/one/", tmp_path / "got")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "weights has 4999 bytes, not 5000"),
        (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "another sha256"),
        (lambda _: None, "weights is missing"),
    ],
)
def test_a_damaged_set_is_refused_with_what_is_wrong(
    store: Store,
    folder: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes | None],
    message: str,
) -> None:
    store.put_files(folder, "sets/one/")
    data = damage(store.backend.get("sets/one/weights"))
    if data is None:
        store.backend.delete("sets/one/weights")
    else:
        store.backend.put("sets/one/weights", data)
    with pytest.raises(Damaged, match=f"sets/one/ is damaged: .*{message}"):
        store.get_files("sets/one/", tmp_path / "got")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"files": []}',
        b'{"files": {"weights": 3}}',
        b'{"files": {"weights": {"bytes": 1}}}',
        b'{"files": {"../../escaped": {"bytes": 1, "sha256": ""}}}',
        b'{"files": {"/escaped": {"bytes": 1, "sha256": ""}}}',
    ],
)
def test_a_damaged_or_hostile_manifest_counts_as_none_and_is_replaced(
    store: Store, folder: Path, tmp_path: Path, manifest: bytes
) -> None:
    store.backend.put("sets/one/manifest.json", manifest)
    assert store.files("sets/one/") is None
    with pytest.raises(KeyMissing):
        store.get_files("sets/one/", tmp_path / "got")
    put = store.put_files(folder, "sets/one/")
    assert store.files("sets/one/") == put
    assert not any("escaped" in name for _, _, names in os.walk(tmp_path) for name in names)


def test_a_complete_set_stays_when_the_same_work_is_done_twice(store: Store, folder: Path) -> None:
    first = store.put_files(folder, "sets/one/")
    (folder / "weights").write_bytes(b"other")
    assert store.put_files(folder, "sets/one/") == first
    assert len(store.backend.get("sets/one/weights")) == 5000


def test_a_file_named_like_the_manifest_is_refused(store: Store, folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"manifest.json, a name the store needs"):
        store.put_files(folder, "sets/one/")


def test_a_deleted_set_is_gone(store: Store, folder: Path) -> None:
    store.put_files(folder, "sets/one/")
    store.delete_files("sets/one/")
    assert list(store.backend.entries("sets/")) == []


def test_json_comes_back_and_what_is_none_is_refused(store: Store) -> None:
    store.write_json("doc.json", {"a": [1, 2.5, None, "x"]})
    assert store.read_json("doc.json") == {"a": [1, 2.5, None, "x"]}
    assert not store.create_json("doc.json", {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json("nan.json", {"a": float("nan")})
    for damaged in (b"{", b"\xff"):
        store.backend.put("bad.json", damaged)
        with pytest.raises(Damaged, match="bad.json is damaged: not JSON"):
            store.read_json("bad.json")


# The folder alone


def test_a_store_is_opened_by_name_or_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_STORE", str(tmp_path / "environment"))
    assert Store.open().url == str(tmp_path / "environment")
    assert Store.open(f"file://{tmp_path}/named").url == str(tmp_path / "named")
    assert not (tmp_path / "named").exists()
    with pytest.raises(StoreError, match="ftp:// is not supported; name a folder or s3://"):
        Store.open("ftp://host/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file; name a folder"):
        Store.open(str(tmp_path / "file"))


def test_a_file_in_the_way_is_said_in_words(tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path)
    backend.put("a", b"x")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        backend.get("a/b")
    assert not backend.exists("a/b")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"this machine does not let us mount: {answer.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_in_words_and_leaves_what_was_there(
    small_disk: Path, tmp_path: Path
) -> None:
    backend = FolderBackend(small_disk)
    backend.put("kept", b"old")
    backend.append("log", b"line\n")
    (tmp_path / "big").write_bytes(b"x" * 2**21)
    for write in (
        lambda: backend.put("kept", b"x" * 2**21),
        lambda: backend.create("new", b"x" * 2**21),
        lambda: backend.append("log", b"x" * 2**21 + b"\n"),
        lambda: backend.upload(tmp_path / "big", "uploaded"),
        lambda: backend.compare_and_swap("kept", b"x" * 2**21, backend.get_versioned("kept")[1]),
    ):
        with pytest.raises(NotWritable, match="the disk is full; free space or choose another"):
            write()
    assert [entry.key for entry in backend.entries("")] == ["kept", "log"]
    assert backend.get("kept") == b"old" and backend.get("log") == b"line\n"
    backend.put("kept", b"new")
    assert backend.get("kept") == b"new"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said_in_words(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotWritable, match="permission denied"):
        FolderBackend(tmp_path / "store").put("a", b"x")
