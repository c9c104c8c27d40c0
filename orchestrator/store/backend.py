"""What a store needs from the place where its bytes live, and the errors it answers with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


class StoreError(Exception):
    """The store cannot do what was asked; the message says what to do about it."""


class NotWritable(StoreError):
    """The store takes nothing in now: its disk is full, its file system or permissions say no."""


class Unreachable(NotWritable):
    """The store does not answer now; whatever waits for it is no fault of a trial."""


class KeyMissing(StoreError):
    """There is nothing under that key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} is not in the store"


class Damaged(StoreError):
    """A set of files is not what its manifest says."""

    def __init__(self, prefix: str, detail: str) -> None:
        super().__init__(prefix, detail)
        self.prefix, self.detail = prefix, detail

    def __str__(self) -> str:
        return f"{self.prefix} is damaged: {self.detail}"


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    num_bytes: int


@dataclass(frozen=True)
class LeftOver:
    """What a write that was cut off left behind: no key stands for it."""

    name: str
    """For people, and for `remove_left_over`."""
    num_bytes: int
    age_s: float
    upload_id: str = ""
    """Of a multipart upload."""


TEMPORARY = ".~"
"""Names with this in them are unfinished or locks; no listing shows them."""


def check_key(key: str) -> list[str]:
    """The parts of a key. Raises StoreError for one that leaves the store or hides in it."""
    parts = key.split("/")
    if "\0" in key or any(part in ("", ".", "..") or TEMPORARY in part for part in parts):
        raise StoreError(f"key {key!r} is not a plain path; use names joined by single '/'")
    return parts


class Backend(ABC):
    """Bytes under keys ("a/b/c"). A write is whole or absent; only `append` grows an object."""

    append_rewrites = False
    """Whether `append` writes the whole object again: then many small objects beat a big one."""

    reads_at_once = 1
    """How many reads to have under way: several where each waits for a network."""

    @abstractmethod
    def get(self, key: str, offset: int = 0) -> bytes:
        """Contents from a byte offset on. Raises KeyMissing."""

    def get_many(self, offset_by_key: Mapping[str, int]) -> dict[str, bytes]:
        """Contents of several keys, each from its byte offset on; what is missing is left out."""
        found = {}
        for key, offset in offset_by_key.items():
            try:
                found[key] = self.get(key, offset)
            except KeyMissing:
                continue
        return found

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Create or replace."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Create; False, and nothing changed, when the key exists. One of many callers wins."""

    @abstractmethod
    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """Contents and a version for `compare_and_swap`. Raises KeyMissing."""

    @abstractmethod
    def compare_and_swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace if the version is still the current one; False, and nothing changed, if not."""

    @abstractmethod
    def append(self, key: str, data: bytes) -> None:
        """Grow an object that has a single writer. A reader may see a torn last line."""

    @abstractmethod
    def entries(self, prefix: str) -> Iterator[Entry]:
        """Everything under a prefix that ends in '/', sorted by key."""

    @abstractmethod
    def children(self, prefix: str) -> list[str]:
        """Names directly under a prefix that ends in '/': files, and folders without their '/'."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove; no error when it is not there."""

    @abstractmethod
    def upload(self, local: Path, key: str) -> None:
        """Put a file, streamed."""

    @abstractmethod
    def download(self, key: str, local: Path) -> None:
        """Get into a file that appears whole or not at all. Raises KeyMissing."""

    @abstractmethod
    def age_s(self, key: str) -> float:
        """Seconds since an object was written, by the store's clock. Raises KeyMissing."""

    @abstractmethod
    def left_overs(self) -> Iterator[LeftOver]:
        """Writes that were cut off, or are under way now: their age tells."""

    @abstractmethod
    def remove_left_over(self, left_over: LeftOver) -> None:
        """No error when it is gone."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key."""
        try:
            self.get(key, offset=0)
        except KeyMissing:
            return False
        return True

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything under a prefix that ends in '/'."""
        for entry in list(self.entries(prefix)):
            self.delete(entry.key)
