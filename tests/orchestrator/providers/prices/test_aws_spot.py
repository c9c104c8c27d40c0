"""AWS spot prices: asked for once, kept in the store, integrated over a node's life."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.money.node_price import node_price
from orchestrator.providers.prices import PriceProvider, PriceUnavailable, recalled_history
from orchestrator.providers.prices import aws_spot as aws
from orchestrator.store import Store

NOW = 1_790_000_000.0
LABELS = {
    "saeq-provider": "aws",
    "saeq-instance-type": "p4d.24xlarge",
    "ray.io/availability-zone": "us-east-1a",
}
CHANGES = [(NOW - 7200, 8.0), (NOW - 3600, 16.0), (NOW - 900, 12.0)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


class CannedClient:
    """EC2 as far as it is asked: one page a change, the newest first, as AWS gives them."""

    def __init__(self, changes: list[tuple[float, float]]) -> None:
        self.changes, self.asked = changes, 0

    def get_paginator(self, operation: str) -> CannedClient:
        assert operation == "describe_spot_price_history"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        self.asked += 1
        before = max((at for at, _ in self.changes if at <= request["StartTime"]), default=0.0)
        for at, usd in sorted(self.changes, reverse=True):
            if before <= at <= request["EndTime"]:
                entry = {"Timestamp": datetime.fromtimestamp(at, UTC), "SpotPrice": f"{usd:.6f}"}
                yield {"SpotPriceHistory": [entry]}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> CannedClient:
    canned = CannedClient(list(CHANGES))
    monkeypatch.setattr(aws, "_client", lambda _zone: canned)
    monkeypatch.setattr(aws.AwsSpotPrices, "_failed", {})
    return canned


def test_a_history_with_three_changes_is_integrated(store: Store, client: CannedClient) -> None:
    price = node_price(0.0, LABELS, num_devices=8, store=store, now=NOW)
    assert price.usd_per_hour == 12.0 / 8
    assert price.source == "aws spot p4d.24xlarge in us-east-1a"
    history = recalled_history(price.source, store)
    assert history is not None and client.asked == 1
    assert history.usd(NOW - 5400, NOW) == pytest.approx(0.5 * 8 + 0.75 * 16 + 0.25 * 12)


def test_others_need_not_ask(store: Store, client: CannedClient) -> None:
    for _ in range(3):
        node_price(0.0, LABELS, store=store, now=NOW + 60)
    assert client.asked == 1


def test_an_old_answer_is_carried_on_and_nothing_of_it_is_forgotten(
    store: Store, client: CannedClient
) -> None:
    node_price(0.0, LABELS, store=store, now=NOW)
    client.changes.append((NOW + 4000, 20.0))
    price = node_price(0.0, LABELS, store=store, now=NOW + 5000)
    assert price.usd_per_hour == 20.0 and client.asked == 2
    history = recalled_history(price.source, store)
    assert history is not None
    assert list(history.changes) == [*CHANGES, (NOW + 4000, 20.0)]


def test_a_node_that_is_not_rented_on_the_spot_market_has_no_spot_price(
    store: Store, client: CannedClient
) -> None:
    labels = {**LABELS, "ray.io/market-type": "on-demand", "ray.io/accelerator-type": "A100-40G"}
    assert node_price(0.0, labels, store=store, now=NOW).is_estimate
    assert client.asked == 0


@pytest.mark.parametrize("missing", ["saeq-instance-type", "ray.io/availability-zone"])
def test_labels_that_do_not_name_the_node_say_what_to_write(
    missing: str, store: Store, client: CannedClient, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {key: value for key, value in LABELS.items() if key != missing}
    with caplog.at_level(logging.WARNING):
        assert node_price(0.0, labels, store=store, now=NOW).usd_per_hour is None
    assert "saeq-instance-type=g5.xlarge" in caplog.text
    assert client.asked == 0


def test_who_gets_no_answer_does_not_ask_again_at_once(
    store: Store, client: CannedClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.changes.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert node_price(0.0, LABELS, store=store, now=NOW).usd_per_hour is None
    assert client.asked == 1 and "AWS lists none" in caplog.text


def test_a_stale_answer_is_better_than_none(store: Store, client: CannedClient) -> None:
    node_price(0.0, LABELS, store=store, now=NOW)
    client.changes.clear()
    assert node_price(0.0, LABELS, store=store, now=NOW + 9000).usd_per_hour == 12.0


def test_a_damaged_cache_is_asked_anew(store: Store, client: CannedClient) -> None:
    key = store.layout.prices("p4d.24xlarge", "us-east-1a")
    store.backend.put(key, b'{"changes": [["x"')
    assert node_price(0.0, LABELS, store=store, now=NOW).usd_per_hour == 12.0
    assert client.asked == 1


def test_no_other_source_is_taken_for_a_spot_price(store: Store) -> None:
    for source in ("", "price.usd_per_hour of the sweep", "aws spot ../x in us-east-1a"):
        assert recalled_history(source, store) is None


def test_a_provider_that_is_named_like_another_is_refused() -> None:
    with pytest.raises(ValueError, match="two providers are named 'aws'"):
        type("Second", (PriceProvider,), {"name": "aws"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_question_is_one_that_ec2_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    now = datetime.now(UTC).timestamp()
    with moto.mock_aws():
        history = aws.spot_price_history("m5.large", "us-east-1a", now - 3600, now)
        assert history.usd_per_hour_at(now) > 0


def test_no_credentials_are_said_and_not_fatal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PriceUnavailable, match=r"price\.usd_per_hour"):
        aws.spot_price_history("m5.large", "us-east-1a", NOW - 3600, NOW)
