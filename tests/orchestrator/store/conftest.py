"""The places that the contract of a store is tried on; a new backend joins by one line."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.store import Backend, Store
from orchestrator.store.folder import FolderBackend
from orchestrator.store.s3 import S3Backend
from orchestrator.store.s3_place import S3Place
from tests.orchestrator.store.servers import S3Server, moto_server, s3_server


def _in(server: S3Server) -> S3Backend:
    return S3Backend(S3Place.parse(server.url(f"some/{uuid.uuid4().hex}")))


def _folder(request: pytest.FixtureRequest) -> Backend:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    return FolderBackend(tmp_path / "store")


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], Backend]] = {
    "folder": _folder,
    "moto": lambda request: _in(request.getfixturevalue("moto")),
    "seaweedfs": lambda request: _in(request.getfixturevalue("seaweedfs")),
}
"""Name -> an empty backend; it pickles, so that other processes can open the same place."""

SLOW_TO_START = frozenset({"seaweedfs"})
LOSES_RACES = frozenset({"moto"})
"""Answers as AWS does, but looks and writes in two steps, and keeps half of a body."""


def _params(names: frozenset[str]) -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_TO_START else [])
        for name in sorted(names)
    ]


@pytest.fixture(params=_params(frozenset(BACKENDS)))
def backend(request: pytest.FixtureRequest) -> Backend:
    """An empty one of each."""
    return BACKENDS[request.param](request)


@pytest.fixture(params=_params(frozenset(BACKENDS) - LOSES_RACES))
def shared_backend(request: pytest.FixtureRequest) -> Backend:
    """An empty one of each that several processes may write to."""
    return BACKENDS[request.param](request)


@pytest.fixture
def store(backend: Backend) -> Store:
    return Store(backend, "test")


@contextmanager
def _in_environment(server: S3Server) -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[S3Server]:
    """A real S3 server; this process has the credentials."""
    with s3_server() as server, _in_environment(server):
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """moto's S3; this process has the credentials."""
    with moto_server() as server, _in_environment(server):
        yield server
