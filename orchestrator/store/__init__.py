"""The durable place of everything: queue, logs, checkpoints, artefacts.

A set of files counts once its manifest, written last, is there; what is read back is checked
against it. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.store.backend import Backend as Backend
from orchestrator.store.backend import (
    Damaged,
    KeyMissing,
    NotWritable,
    StoreError,
    Unreachable,
)
from orchestrator.store.folder import FolderBackend
from orchestrator.store.layout import Layout
from orchestrator.store.s3 import S3Backend
from orchestrator.store.s3_place import S3Place

__all__ = [
    "Backend",
    "Damaged",
    "FileSet",
    "KeyMissing",
    "Layout",
    "NotWritable",
    "Store",
    "StoreError",
    "Unreachable",
]

T = TypeVar("T")
U = TypeVar("U")

MANIFEST = "manifest.json"
DEFAULT_STORE = "./saeq-store"


@dataclass(frozen=True)
class FileSet:
    """A complete set of files in the store."""

    prefix: str
    files: dict[str, dict[str, Any]]
    """Name -> {"bytes": int, "sha256": str}."""

    @property
    def sha256(self) -> str:
        """One hash for the whole set: what a child's record names as its parent."""
        text = json.dumps(self.files, sort_keys=True).encode()
        return hashlib.sha256(text).hexdigest()


class Store:
    """The store of one user or lab. Cheap to open: a connection is made when first needed."""

    def __init__(self, backend: Backend, url: str) -> None:
        self.backend = backend
        self.url = url
        self.layout = Layout()

    @classmethod
    def open(cls, url: str | None = None) -> Store:
        """Open by `--store`, else $SAEQ_STORE, else ./saeq-store.

        Args:
            url: a folder, `file:///...`, or `s3://bucket/prefix`, with `?endpoint_url=` for a
                server other than AWS (else $SAEQ_S3_ENDPOINT, else $AWS_ENDPOINT_URL_S3).

        Raises StoreError for anything else. Whether the store is there shows at its first use.
        """
        url = url or os.environ.get("SAEQ_STORE") or DEFAULT_STORE
        if url.startswith("s3://"):
            place = S3Place.parse(url)
            return cls(S3Backend(place), place.url)
        if "://" in url and not url.startswith("file://"):
            scheme = url.split("://", 1)[0]
            raise StoreError(
                f"store {url!r}: {scheme}:// is not supported; name a folder or s3://BUCKET/PREFIX"
            )
        path = Path(url.removeprefix("file://")).expanduser().absolute()
        if path.exists() and not path.is_dir():
            raise StoreError(f"store {str(path)!r} is a file; name a folder")
        return cls(FolderBackend(path), str(path))

    def side_by_side(self, act: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """`act` of each item, in their order; in threads where each read waits for a network."""
        at_once = min(self.backend.reads_at_once, len(items))
        if at_once < 2:
            return [act(item) for item in items]
        with ThreadPoolExecutor(at_once, thread_name_prefix="saeq-reads") as threads:
            return list(threads.map(act, items))

    # JSON documents

    def read_json(self, key: str) -> Any:
        """Raises KeyMissing, or Damaged for what is not JSON."""
        try:
            return json.loads(self.backend.get(key))
        except ValueError as error:  # not JSON, or not even UTF-8
            raise Damaged(key, f"not JSON ({error})") from error

    def write_json(self, key: str, value: Any) -> None:
        self.backend.put(key, _dump(value))

    def create_json(self, key: str, value: Any) -> bool:
        """Exclusive create; False when it exists."""
        return self.backend.create(key, _dump(value))

    # Sets of files

    def put_files(
        self, folder: Path, prefix: str, last_check: Callable[[], None] | None = None
    ) -> FileSet:
        """Upload a folder; it counts once the manifest, written last, is there.

        When a complete set is there already (the same work done twice), that one stays.
        Raises StoreError for a folder with a file that is named like the manifest.

        Args:
            last_check: called before each file and right before the manifest is written; what it
                raises stops that.
        """
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": _file_sha256(path)}
        if MANIFEST in files:
            raise StoreError(f"{folder} has a {MANIFEST}, a name the store needs; rename the file")
        complete = self.files(prefix)
        if complete is not None:
            return complete
        check = last_check or _nothing_to_check
        for name in files:
            check()
            self.backend.upload(folder / name, prefix + name)
        check()
        if not self.create_json(prefix + MANIFEST, {"files": files}):
            existing = self.files(prefix)
            if existing is not None:
                return existing
            self.write_json(prefix + MANIFEST, {"files": files})  # what is there is damaged
        return FileSet(prefix, files)

    def files(self, prefix: str) -> FileSet | None:
        """The complete set under a prefix, or None while it has no readable manifest."""
        try:
            files = self.read_json(prefix + MANIFEST)["files"]
            sound = all(_is_plain(name) and _is_entry(entry) for name, entry in files.items())
        except (KeyMissing, Damaged, KeyError, TypeError, AttributeError):
            return None
        return FileSet(prefix, files) if sound else None

    def get_files(self, prefix: str, folder: Path) -> FileSet:
        """Download a complete set and check every file. Raises KeyMissing or Damaged."""
        found = self.files(prefix)
        if found is None:
            raise KeyMissing(prefix + MANIFEST)
        for name, entry in found.files.items():
            local = folder / name
            try:
                self.backend.download(prefix + name, local)
            except KeyMissing as error:
                raise Damaged(prefix, f"{name} is missing") from error
            if local.stat().st_size != entry["bytes"]:
                raise Damaged(
                    prefix, f"{name} has {local.stat().st_size} bytes, not {entry['bytes']}"
                )
            if _file_sha256(local) != entry["sha256"]:
                raise Damaged(prefix, f"{name} has another sha256 than its manifest")
        return found

    def delete_files(self, prefix: str) -> None:
        """Remove a set; the manifest first, so that half a set never looks whole."""
        self.backend.delete(prefix + MANIFEST)
        self.backend.delete_prefix(prefix)

    def local_path(self, prefix: str) -> str:
        """What a person opens: a path for a folder store, a URL otherwise."""
        if isinstance(self.backend, FolderBackend):
            return str(self.backend.path(prefix.removesuffix("/")))
        root = self.backend.place.root if isinstance(self.backend, S3Backend) else self.url
        return f"{root}/{prefix.removesuffix('/')}"


def _nothing_to_check() -> None:
    """Stands in where nobody asks for a last check."""


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder: a manifest in a shared bucket may say anything."""
    return not any(part in ("", ".", "..") for part in name.split("/")) and "\\" not in name


def _is_entry(entry: Any) -> bool:
    return isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
