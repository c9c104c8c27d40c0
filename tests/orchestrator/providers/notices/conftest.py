"""A metadata server, and an environment that leads every source to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.providers.notices.aws import ENDPOINT_VARIABLE
from orchestrator.providers.notices.gcp import HOST_VARIABLE
from tests.orchestrator.providers.notices.metadata_server import MetadataServer


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    server = MetadataServer()
    monkeypatch.setenv(ENDPOINT_VARIABLE, server.url)
    monkeypatch.setenv(HOST_VARIABLE, server.address)
    with server.running():
        yield server
