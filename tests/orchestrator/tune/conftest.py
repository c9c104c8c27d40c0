"""A cluster of several nodes on this machine, and a sweep that is worked off on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.some_cluster import SomeCluster, some_cluster


@pytest.fixture
def cluster() -> Iterator[SomeCluster]:
    """A head without cores; add nodes to it."""
    with (
        tempfile.TemporaryDirectory(prefix="sc-", dir="/tmp") as folder,
        some_cluster(Path(folder)) as cluster,
    ):
        yield cluster
