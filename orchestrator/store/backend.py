"""What a store needs from the place where its bytes live, and the errors it answers with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class StoreError(Exception):
    """The store cannot do what was asked; the message says what to do about it."""


class NotWritable(StoreError):
    """The store takes nothing in now: its disk is full, its file system or permissions say no."""


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


class Backend(ABC):
    """Bytes under keys ("a/b/c"). A write is whole or absent; only `append` grows an object."""

    @abstractmethod
    def get(self, key: str, offset: int = 0) -> bytes:
        """Contents from a byte offset on. Raises KeyMissing."""

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
