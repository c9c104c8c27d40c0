"""Arrays in one file that shows whether it is whole: safetensors with a checksum. Without torch."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SIZE_BY_DTYPE = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I32": 4, "I64": 8, "U8": 1}
"""Bytes of an element, by the names that safetensors has for types; numpy lacks two of them."""
MAX_HEADER_BYTES = 1 << 20
CHECKSUM_KEY = "crc32"


class BadShard(ValueError):
    """A file that is not what was written.

    Args:
        path: the file.
        reason: what shows it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.reason}"


@dataclass(frozen=True)
class HostArray:
    """An array as its bytes."""

    dtype: str
    """A key of `SIZE_BY_DTYPE`."""
    shape: tuple[int, ...]
    data: Bytes
    """In row-major order, one-dimensional."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> HostArray:
        """Take a numpy array of int32, int64, uint8 or float32."""
        name = {"i4": "I32", "i8": "I64", "u1": "U8", "f4": "F32"}[array.dtype.str[1:]]
        return cls(name, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def numpy(self) -> NDArray[Any]:
        """Give back what `of` took."""
        dtype = {"I32": np.int32, "I64": np.int64, "U8": np.uint8, "F32": np.float32}[self.dtype]
        return self.data.view(dtype).reshape(self.shape)


def shard_bytes(arrays: Mapping[str, HostArray], metadata: Mapping[str, str]) -> int:
    """Size of the file that `write_shard` would write."""
    return len(_header(arrays, metadata, 0)) + sum(each.data.nbytes for each in arrays.values())


def write_shard(
    file: IO[bytes], arrays: Mapping[str, HostArray], metadata: Mapping[str, str]
) -> None:
    """Write arrays from where the file stands; any safetensors reader can read the result."""
    checksum = zlib.crc32(_header(arrays, metadata, 0))
    for each in arrays.values():
        checksum = zlib.crc32(each.data.data, checksum)
    file.write(_header(arrays, metadata, checksum))
    for each in arrays.values():
        file.write(each.data.data)


def read_shard(
    path: Path, allocate: Callable[[int], Bytes] = lambda size: np.empty(size, np.uint8)
) -> tuple[dict[str, HostArray], dict[str, str]]:
    """Read a file whole; returns (arrays, metadata).

    Args:
        allocate: gives a buffer of so many bytes for each array.

    Raises:
        BadShard: it is cut short, altered, or no such file.
        OSError: it is not there, or cannot be read.
    """
    with path.open("rb") as file:
        arrays, metadata, checksum = _read_header(path, file)
        found = zlib.crc32(_header(arrays, metadata, 0))
        for name, each in arrays.items():
            size = math.prod(each.shape) * SIZE_BY_DTYPE[each.dtype]
            data = allocate(size)
            if file.readinto(data.data) != size:
                raise BadShard(str(path), "it is cut short")
            arrays[name] = HostArray(each.dtype, each.shape, data)
            found = zlib.crc32(data.data, found)
    if found != checksum:
        raise BadShard(str(path), "its checksum differs")
    return arrays, metadata


def _header(arrays: Mapping[str, HostArray], metadata: Mapping[str, str], checksum: int) -> bytes:
    """The length of what follows and the JSON that safetensors expects, always of equal length."""
    entries: dict[str, Any] = {"__metadata__": {**metadata, CHECKSUM_KEY: f"{checksum:08x}"}}
    start = 0
    for name, each in arrays.items():
        end = start + math.prod(each.shape) * SIZE_BY_DTYPE[each.dtype]
        entries[name] = {
            "dtype": each.dtype,
            "shape": list(each.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _read_header(path: Path, file: IO[bytes]) -> tuple[dict[str, HostArray], dict[str, str], int]:
    """Arrays without data yet, metadata without the checksum, and that."""
    nothing = np.empty(0, np.uint8)
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise BadShard(str(path), "its header is too long")
        entries = json.loads(file.read(length))
        metadata = {str(key): str(value) for key, value in entries.pop("__metadata__").items()}
        checksum = int(metadata.pop(CHECKSUM_KEY), 16)
        arrays = {
            name: HostArray(each["dtype"], tuple(map(int, each["shape"])), nothing)
            for name, each in entries.items()
        }
        size = sum(math.prod(each.shape) * SIZE_BY_DTYPE[each.dtype] for each in arrays.values())
    except BadShard:
        raise
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadShard(str(path), "its header cannot be read") from error
    if path.stat().st_size != 8 + length + size:
        raise BadShard(str(path), "its size is not what its header says")
    return arrays, metadata, checksum
