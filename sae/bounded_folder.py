"""Files that may be made again at any time, in a folder that several processes keep within bounds.

What was last used before a process opened the folder makes room for what that process writes,
least recently used first. What was used since then stays, and when nothing else is left, nothing
new is written: an endless stream must not drive out its own start, which is what others read.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from sae.shard_file import BadShard, Bytes, HostArray, read_shard, shard_bytes, write_shard

logger = logging.getLogger(__name__)

ENDING = ".safetensors"
TEMPORARY = ".writing-"
ABANDONED_AFTER_S = 3600.0
"""A temporary file that was not touched for so long belongs to a process that is gone."""


class BoundedFolder:
    """Shards by name, within a number of bytes; trouble with the disk never reaches the caller.

    Args:
        root: made if it is not there.
        max_bytes: of all files below it, whoever wrote them.
        purpose: what it is, for people: `the activation cache`.
    """

    def __init__(self, root: Path, max_bytes: int, purpose: str) -> None:
        self.root, self.max_bytes = root, max_bytes
        self._purpose = purpose
        self._opened_ns = time.time_ns()
        self._is_writable = True
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._switch_off(error)

    @property
    def is_writable(self) -> bool:
        """Whether it still takes anything in."""
        return self._is_writable

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name, whole or damaged."""
        return self._path(name).is_file()

    def read(
        self, name: str, allocate: Callable[[int], Bytes] = lambda size: np.empty(size, np.uint8)
    ) -> dict[str, HostArray] | None:
        """Read a shard and mark it used; None if there is none, or if it was damaged and is gone.

        Args:
            allocate: gives a buffer of so many bytes for each array.
        """
        path = self._path(name)
        try:
            arrays, _ = read_shard(path, allocate)
        except FileNotFoundError:
            return None
        except BadShard as error:
            logger.warning("%s: %s; it is made again", self._purpose, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        except OSError as error:
            logger.warning("%s: %s cannot be read (%s)", self._purpose, path, error.strerror)
            return None
        now_ns = time.time_ns()
        with suppress(OSError):  # a read-only folder, or evicted meanwhile
            os.utime(path, ns=(now_ns, now_ns))
        return arrays

    def write(
        self, name: str, arrays: Mapping[str, HostArray], metadata: Mapping[str, str]
    ) -> bool:
        """Write a shard, whole or not at all; False if there was no room, or it is there already.

        A disk that is full or refuses is warned of once, and nothing is written afterwards.
        """
        if not self._is_writable or self.has(name):
            return False
        try:
            return self._write(self._path(name), arrays, metadata)
        except OSError as error:
            self._switch_off(error)
            return False

    def _write(
        self, path: Path, arrays: Mapping[str, HostArray], metadata: Mapping[str, str]
    ) -> bool:
        size = shard_bytes(arrays, metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with self._lock():
                if not self._make_room(size):
                    return False
                # At its full length right away: others count it while it is being written.
                temporary.touch(exist_ok=False)
                os.truncate(temporary, size)
            with temporary.open("r+b") as file:
                write_shard(file, arrays, metadata)
            # By the clock of `_opened_ns`: the file system's own lags behind by milliseconds.
            now_ns = time.time_ns()
            os.utime(temporary, ns=(now_ns, now_ns))
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True

    def _make_room(self, size: int) -> bool:
        """Delete what may go until `size` more bytes fit; False if they do not fit then."""
        files = sorted(self._files())
        used = sum(each_size for _, each_size, _ in files)
        old = [each for each in files if each[0] < self._opened_ns]
        if used + size - sum(each_size for _, each_size, _ in old) > self.max_bytes:
            return False  # what cannot fit must not drive out anything
        for _, each_size, path in old:
            if used + size <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            used -= each_size
        return True

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(last used, bytes, path) of each file; abandoned temporary ones count as oldest."""
        for path in self.root.rglob("*"):
            is_temporary = path.name.startswith(TEMPORARY)
            if not (is_temporary or path.name.endswith(ENDING)):
                continue
            with suppress(FileNotFoundError):  # renamed or deleted meanwhile
                state = path.stat()
                used_ns = state.st_mtime_ns
                if is_temporary:
                    age_s = time.time() - used_ns / 1e9
                    used_ns = 0 if age_s > ABANDONED_AFTER_S else time.time_ns()
                yield used_ns, state.st_size, path

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, name: str) -> Path:
        return self.root / f"{name}{ENDING}"

    def _switch_off(self, error: OSError) -> None:
        if self._is_writable:
            self._is_writable = False
            logger.warning(
                "%s at %s takes nothing in any more (%s); free space there, or give it another "
                "folder",
                self._purpose,
                self.root,
                error.strerror,
            )
