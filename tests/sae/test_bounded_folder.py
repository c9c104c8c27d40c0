"""A folder stays within its bounds, whoever writes into it at the same time."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sae.bounded_folder import BoundedFolder
from sae.shard_file import HostArray

WRITERS = """
import sys, numpy as np
from pathlib import Path
from sae.bounded_folder import BoundedFolder
from sae.shard_file import HostArray
folder = BoundedFolder(Path(sys.argv[1]), int(sys.argv[2]), "a test")
for number in range(60):
    name = f"s/{number % 20}"
    found = folder.read(name)
    if found is not None:
        assert (found["a"].numpy() == number % 20).all()
    else:
        folder.write(name, {"a": HostArray.of(np.full(1000, number % 20, np.int32))}, {})
    with folder._lock():
        used = sum(path.stat().st_size for path in folder.root.rglob("*.safetensors"))
    assert used <= folder.max_bytes, used
"""


def array(value: int, size: int = 1000) -> dict[str, HostArray]:
    return {"a": HostArray.of(np.full(size, value, dtype=np.int32))}


def age(folder: Path, name: str, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(folder / f"{name}.safetensors", (when, when))


def names(folder: Path) -> set[str]:
    return {path.name.removesuffix(".safetensors") for path in folder.rglob("*.safetensors")}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, 10**6, "a test")
    arrays = {
        "ids": HostArray.of(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "none": HostArray.of(np.empty(0, dtype=np.uint8)),
    }
    assert folder.read("x/y") is None
    assert folder.write("x/y", arrays, {"from": "here"})
    assert not folder.write("x/y", arrays, {})
    found = folder.read("x/y")
    assert found is not None
    assert np.array_equal(found["ids"].numpy(), np.arange(6).reshape(2, 3))
    assert found["none"].shape == (0,)


def test_the_least_recently_used_makes_room_and_what_is_in_use_stays(tmp_path: Path) -> None:
    earlier = BoundedFolder(tmp_path, 10**6, "a test")
    for number, seconds in enumerate([300, 100, 200]):
        earlier.write(str(number), array(number), {})
        age(tmp_path, str(number), seconds)
    folder = BoundedFolder(tmp_path, 3 * 4200, "a test")
    assert folder.read("0") is not None  # oldest, but used now
    assert folder.write("3", array(3), {})
    assert names(tmp_path) == {"0", "1", "3"}
    assert folder.write("4", array(4), {})
    assert names(tmp_path) == {"0", "3", "4"}
    assert not folder.write("5", array(5), {})
    assert names(tmp_path) == {"0", "3", "4"}


def test_what_cannot_fit_drives_nothing_out(tmp_path: Path) -> None:
    BoundedFolder(tmp_path, 10**6, "a test").write("old", array(0), {})
    age(tmp_path, "old", 100)
    assert not BoundedFolder(tmp_path, 9000, "a test").write("huge", array(1, 5000), {})
    assert names(tmp_path) == {"old"}


def test_what_a_killed_writer_left_is_cleared_away_and_a_living_ones_is_not(
    tmp_path: Path,
) -> None:
    for name in (".writing-dead", ".writing-alive"):
        (tmp_path / name).write_bytes(b"0" * 5000)
    long_ago = time.time() - 10_000
    os.utime(tmp_path / ".writing-dead", (long_ago, long_ago))
    assert BoundedFolder(tmp_path, 10_000, "a test").write("a", array(1), {})
    assert (tmp_path / ".writing-alive").exists()
    assert not (tmp_path / ".writing-dead").exists()


def test_a_folder_that_cannot_be_made_is_warned_of_and_stays_out_of_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        folder = BoundedFolder(tmp_path / "file" / "root", 10**6, "a test")
        assert not folder.write("a", array(1), {})
        assert not folder.write("b", array(1), {})
    assert len([r for r in caplog.records if "takes nothing in" in r.getMessage()]) == 1


def test_processes_that_write_at_once_keep_the_bound_and_read_whole_files(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WRITERS, str(tmp_path), str(8 * 4300)]
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0, errors
        assert not errors
    assert 0 < len(names(tmp_path)) <= 8
    assert not list(tmp_path.rglob(".writing*"))
