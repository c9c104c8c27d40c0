"""A folder as a store: a local disk or a shared file system.

Exclusive create is a hard link to a finished temporary file (atomic, also over NFS), replace is a
rename, compare-and-swap is a rename under an advisory lock, which the kernel drops with its holder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.store.backend import (
    TEMPORARY,
    Backend,
    Entry,
    KeyMissing,
    LeftOver,
    NotWritable,
    StoreError,
    Unreachable,
    check_key,
)

LOCK = "lock"

NOT_WRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
                          errno.EMFILE, errno.ENFILE})  # fmt: skip
UNREACHABLE = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN,
                         errno.EHOSTUNREACH, errno.ENOTCONN, errno.ENODEV})  # fmt: skip
"""What a failing disk or a network file system whose server is gone answers with."""


class FolderBackend(Backend):
    """Keys are paths below `root`, which is made on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path(self, key: str) -> Path:
        """Where a key lives on disk. Raises StoreError for a key that leaves the folder."""
        return self.root.joinpath(*check_key(key))

    def get(self, key: str, offset: int = 0) -> bytes:
        with self._translated(key), open(self.path(key), "rb") as file:
            file.seek(offset)
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        with self._translated(key), self._temporary(key) as temporary:
            _write_whole(temporary, data)
            os.replace(temporary, self.path(key))

    def create(self, key: str, data: bytes) -> bool:
        target = self.path(key)
        if target.exists():
            return False
        with self._translated(key), self._temporary(key) as temporary:
            _write_whole(temporary, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
        return True

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, hashlib.sha256(data).hexdigest()

    def compare_and_swap(self, key: str, data: bytes, version: str) -> bool:
        lock_path = self.path(key).with_name(f"{self.path(key).name}{TEMPORARY}{LOCK}")
        with self._translated(key), open(lock_path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.get_versioned(key)[1] != version:
                return False
            self.put(key, data)
        return True

    def append(self, key: str, data: bytes) -> None:
        path = self.path(key)
        with self._translated(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                start = os.fstat(descriptor).st_size
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(descriptor, view) :]
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, start)
                    raise
            finally:
                os.close(descriptor)

    def entries(self, prefix: str) -> Iterator[Entry]:
        found = []
        with self._translated(prefix):
            for folder, _, names in os.walk(self._folder(prefix), onerror=_unless_missing):
                for name in names:
                    if TEMPORARY in name:
                        continue
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        key = path.relative_to(self.root).as_posix()
                        found.append(Entry(key, path.stat().st_size))
        yield from sorted(found, key=lambda entry: entry.key)

    def children(self, prefix: str) -> list[str]:
        try:
            with self._translated(prefix):
                names = os.listdir(self._folder(prefix))
        except KeyMissing:
            return []
        return sorted(name for name in names if TEMPORARY not in name)

    def delete(self, key: str) -> None:
        with suppress(KeyMissing), self._translated(key):
            self.path(key).unlink()

    def delete_prefix(self, prefix: str) -> None:
        shutil.rmtree(self._folder(prefix), ignore_errors=True)

    def upload(self, local: Path, key: str) -> None:
        with self._translated(key), self._temporary(key) as temporary:
            shutil.copyfile(local, temporary)
            _sync(temporary)
            os.replace(temporary, self.path(key))

    def download(self, key: str, local: Path) -> None:
        source = self.path(key)
        temporary = local.with_name(f"{local.name}{TEMPORARY}{uuid.uuid4().hex}")
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._translated(key):
                shutil.copyfile(source, temporary)
                os.replace(temporary, local)
        finally:
            temporary.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def age_s(self, key: str) -> float:
        with self._translated(key):
            return time.time() - self.path(key).stat().st_mtime

    def left_overs(self) -> Iterator[LeftOver]:
        for folder, _, names in os.walk(self.root):
            for name in names:
                # A lock stays: whoever waits for it would hold one that nobody else sees.
                if TEMPORARY not in name or name.endswith(f"{TEMPORARY}{LOCK}"):
                    continue
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    found = path.stat()
                    key = path.relative_to(self.root).as_posix()
                    yield LeftOver(key, found.st_size, time.time() - found.st_mtime)

    def remove_left_over(self, left_over: LeftOver) -> None:
        with self._translated(left_over.name):
            (self.root / left_over.name).unlink(missing_ok=True)

    def _folder(self, prefix: str) -> Path:
        return self.path(prefix.removesuffix("/")) if prefix else self.root

    @contextmanager
    def _temporary(self, key: str) -> Iterator[Path]:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}{TEMPORARY}{uuid.uuid4().hex}")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise KeyMissing(key) from error
        except OSError as error:
            said = f"the store at {self.root} refused {key}: {_advice(error)}"
            raise _kind(error)(said) from error


def _unless_missing(error: OSError) -> None:
    """A folder that cannot be read is not an empty one: its log would look as if it had ended."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _kind(error: OSError) -> type[StoreError]:
    if error.errno in UNREACHABLE:
        return Unreachable
    return NotWritable if error.errno in NOT_WRITABLE else StoreError


def _advice(error: OSError) -> str:
    advice = {
        errno.ENOSPC: "the disk is full; free space or choose another --store, then run again",
        errno.EDQUOT: "your disk quota is used up; free space or choose another --store",
        errno.EACCES: "permission denied; choose a --store that you may write to",
        errno.EROFS: "the file system is read-only; choose another --store",
        errno.EMFILE: "too many files are open in this process; raise `ulimit -n`, then run again",
        errno.ENFILE: "too many files are open on this machine; end some programs",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another --store",
        errno.ENOLCK: "the file system has no locks; mount it with flock or use another --store",
    }
    said = error.strerror or str(error)
    if error.errno in UNREACHABLE:
        return f"{said}; see to the disk or the server behind it, then run again"
    return advice.get(error.errno or 0, said)


def _write_whole(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
