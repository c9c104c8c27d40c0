"""A sweep on S3 that answers 500 and 503, hangs, and cuts connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store
from orchestrator.store.s3_calls import READ_WITHIN_S
from tests.failures.conftest import Begin
from tests.failures.scenario import SLACK_S
from tests.orchestrator.store.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.orchestrator.store.servers import S3Server, s3_server

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]

SHARE = 0.05
"""Of the requests, while the store is ill."""
SEED = 15
"""By the 70th request every fault was drawn; of other seeds some take hundreds."""
NUM_HANGS = 2
"""Requests of one upload that may get no answer, beyond what a busy machine takes."""
END_WITHIN_S = 1000.0
"""Each that hangs costs a quarter of a minute, and SlowDown slows uploads down."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint) as proxy:
        yield proxy


def test_a_sweep_on_a_store_that_fails_now_and_then_loses_nothing(
    begin: Begin, server: S3Server, proxy: FaultProxy
) -> None:
    """The processes go through the proxy; the verdict looks past it."""
    scenario = begin(
        store=Store.open(server.url("sweeps", proxy.endpoint)),
        environment=server.environment,
        slack_s=SLACK_S + NUM_HANGS * READ_WITHIN_S,
    )
    scenario.scene.damage.may_lose_events = True
    proxy.fail(*Fault, share=SHARE, seed=SEED)
    scenario.start()
    scenario.finish(within_s=END_WITHIN_S)
    assert set(proxy.done) == set(Fault), f"not all were tried: {proxy.done}"
    proxy.mend()
    verdict = scenario.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
