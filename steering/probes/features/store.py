"""Tables on the local disk: written in parts, put together once all are there, read as memory maps.

A folder a table, by a hash of what it was computed from. While it is made it holds
`part-000012.safetensors` files, each whole or absent, with a checksum; then `about.json` and one
.npy file an array, which several processes map at once.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sae.shard_file import SIZE_BY_DTYPE, BadShard, HostArray, read_shard, write_shard
from steering.errors import BadSteeringInput

__all__ = ["Arrays", "StoredTable", "make_room"]

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray[Any, Any]]
ABOUT = "about.json"
TEMPORARY = ".writing-"
COPY_BYTES = 16 * 2**20
_NAMES = {"<f4": "F32", "<f2": "F16", "<i4": "I32", "<i8": "I64", "|u1": "U8"}
_DTYPES = {name: np.dtype(code) for code, name in _NAMES.items()}
assert set(_DTYPES) <= set(SIZE_BY_DTYPE)


@dataclass(frozen=True)
class StoredTable:
    """One table's folder; parts are of consecutive texts and stand one after the other."""

    folder: Path
    identity: Mapping[str, Any]
    """What it was computed from, as JSON; kept beside it for people."""
    num_parts: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to compute."""
        return (self.folder / ABOUT).is_file()

    def has_part(self, part: int) -> bool:
        """Whether that part was written."""
        return self._part(part).is_file()

    def write_part(self, part: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write a part, whole or not at all. Raises BadSteeringInput where the disk refuses."""
        with _told_if_full(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f"{TEMPORARY}{uuid.uuid4().hex}"
            try:
                with temporary.open("wb") as file:
                    write_shard(file, {name: _host(array) for name, array in arrays.items()}, {})
                os.replace(temporary, self._part(part))
            finally:
                temporary.unlink(missing_ok=True)

    def sound_parts(self) -> set[int]:
        """Parts that can be read back; damaged ones are warned of and deleted."""
        sound = set()
        for part in range(self.num_parts):
            if self.has_part(part):
                try:
                    read_shard(self._part(part))
                    sound.add(part)
                except BadShard as error:
                    logger.warning("%s; it is made again", error)
                    self._part(part).unlink()
        return sound

    def put_together(self) -> None:
        """Make the whole of the parts, then delete them. One part is in memory at a time.

        Raises BadShard where a part was damaged since it was written.
        """
        with _told_if_full(self.folder):
            said = self._join_parts()
            about = {"identity": dict(self.identity), "arrays": said}
            temporary = self.folder / f"{TEMPORARY}{ABOUT}"
            temporary.write_text(json.dumps(about, indent=1, sort_keys=True))
            os.replace(temporary, self.folder / ABOUT)
        for part in range(self.num_parts):
            self._part(part).unlink(missing_ok=True)

    def read(self) -> Arrays | None:
        """Memory maps of all arrays; None if it is not whole, or was damaged and is gone."""
        try:
            about = json.loads((self.folder / ABOUT).read_text())["arrays"]
        except FileNotFoundError:
            return None
        found: Arrays = {}
        for name, said in about.items():
            array = self._map(name, said)
            if array is None:
                logger.warning("%s/%s.npy is damaged; the table is made again", self.folder, name)
                shutil.rmtree(self.folder)
                return None
            found[name] = array
        now_ns = time.time_ns()
        with suppress(OSError):
            os.utime(self.folder / ABOUT, ns=(now_ns, now_ns))
        return found

    def _map(self, name: str, said: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
        try:
            array = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        is_same = list(array.shape) == said["shape"] and array.dtype.str == said["dtype"]
        return array if is_same and f"{_checksum(array):08x}" == said["crc32"] else None

    def _join_parts(self) -> dict[str, dict[str, Any]]:
        """Write a .npy file an array; returns what `about.json` says of them."""
        files: dict[str, IO[bytes]] = {}
        said: dict[str, dict[str, Any]] = {}
        checksums: dict[str, int] = {}
        with ExitStack() as undo:
            for part in range(self.num_parts):
                for name, array in self._read_part(part).items():
                    if name not in files:
                        files[name] = undo.enter_context((self.folder / f"{name}.npy").open("wb"))
                        checksums[name] = 0
                        said[name] = {"dtype": array.dtype.str, "shape": [0, *array.shape[1:]]}
                        files[name].write(_npy_header(said[name]))
                    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                    checksums[name] = zlib.crc32(data, checksums[name])
                    files[name].write(data)
                    said[name]["shape"][0] += len(array)
            for name, file in files.items():
                # numpy leaves room in its header for the number of rows to grow.
                file.seek(0)
                file.write(_npy_header(said[name]))
                said[name]["crc32"] = f"{checksums[name]:08x}"
        return said

    def _read_part(self, part: int) -> Arrays:
        arrays, _ = read_shard(self._part(part))
        return {
            name: each.data.view(_DTYPES[each.dtype]).reshape(each.shape)
            for name, each in arrays.items()
        }

    def _part(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.safetensors"


def make_room(root: Path, max_bytes: int, keep: Sequence[Path]) -> None:
    """Delete tables that were read longest ago until all of them fit; those in `keep` stay.

    A process that has one of them open goes on reading it.
    """
    used_by = {}
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.is_dir():
            with suppress(OSError):
                size = sum(file.stat().st_size for file in folder.iterdir())
                about = folder / ABOUT
                used_ns = (about if about.is_file() else folder).stat().st_mtime_ns
                used_by[folder] = (used_ns, size)
    excess = sum(size for _, size in used_by.values()) - max_bytes
    for folder, (_, size) in sorted(used_by.items(), key=lambda each: each[1]):
        if excess <= 0:
            return
        if folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)
            excess -= size


def _npy_header(said: Mapping[str, Any]) -> bytes:
    header = io.BytesIO()
    shape = tuple(said["shape"])
    about = {"descr": said["dtype"], "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _host(array: np.ndarray[Any, Any]) -> HostArray:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return HostArray(_NAMES[array.dtype.str], array.shape, flat)


def _checksum(array: np.ndarray[Any, Any]) -> int:
    checksum = 0
    flat = array.reshape(-1)
    step = max(1, COPY_BYTES // array.dtype.itemsize)
    for start in range(0, len(flat), step):
        checksum = zlib.crc32(np.ascontiguousarray(flat[start : start + step]).data, checksum)
    return checksum


@contextmanager
def _told_if_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadSteeringInput(
            f"features cannot be kept in {folder}: {error.strerror}; free space there, or name "
            "another folder with SAEQ_CACHE"
        ) from error
