"""AWS: what a spot instance costs, from the history of its price in its zone."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.money.price_history import PriceHistory
from orchestrator.providers.prices.base import PriceProvider, PriceUnavailable, ProviderPrice
from orchestrator.store import Damaged, KeyMissing, Store

TYPE_LABEL = "saeq-instance-type"
ZONE_LABELS = ("saeq-zone", "ray.io/availability-zone")
MARKET_LABELS = ("saeq-market-type", "ray.io/market-type")

PRODUCT = "Linux/UNIX"
FRESH_S = 3600.0
"""So long what the store holds counts as the price now."""
LOOK_BACK_S = 86400.0
"""How far back is asked when the store holds nothing yet; later, from the last answer on."""
ASK_AGAIN_AFTER_S = 600.0
"""Pause after a failed question: a node without a way out would pay for it with every trial."""

_SOURCE = re.compile(r"aws spot (?P<type>[A-Za-z0-9.-]+) in (?P<zone>[a-z0-9-]+)")
_REGION = re.compile(r"[a-z]+(-[a-z]+)+-\d+")


class AwsSpotPrices(PriceProvider):
    """The spot market: `saeq-provider=aws` and `saeq-instance-type=...` among a node's labels."""

    name = "aws"
    _failed: ClassVar[dict[tuple[str, str], tuple[float, str]]] = {}
    """(type, zone) -> monotonic time and words of the last failure in this process."""

    def price(self, labels: Mapping[str, str], store: Store, now: float) -> ProviderPrice | None:
        """See the base class. None for a node that is not rented on the spot market."""
        if next((labels[key] for key in MARKET_LABELS if key in labels), "spot") != "spot":
            return None
        instance_type = labels.get(TYPE_LABEL, "")
        zone = next((labels[key] for key in ZONE_LABELS if key in labels), "")
        source = f"aws spot {instance_type} in {zone}"
        if not _SOURCE.fullmatch(source) or not _REGION.match(zone):
            raise PriceUnavailable(
                f"a node with saeq-provider=aws must name its type and zone; got {instance_type!r} "
                f'and {zone!r}; write --labels="{TYPE_LABEL}=g5.xlarge,saeq-zone=us-east-1a"'
            )
        return ProviderPrice(self._history(instance_type, zone, store, now), source)

    def recalled(self, source: str, store: Store) -> PriceHistory | None:
        """See the base class."""
        named = _SOURCE.fullmatch(source)
        kept = _kept(store, named["type"], named["zone"]) if named is not None else None
        return None if kept is None else kept[0]

    def _history(self, instance_type: str, zone: str, store: Store, now: float) -> PriceHistory:
        kept = _kept(store, instance_type, zone)
        if kept is not None and now - kept[1] < FRESH_S:
            return kept[0]
        try:
            since = now - LOOK_BACK_S if kept is None else kept[1]
            history = self._asked_once(instance_type, zone, since, now)
        except PriceUnavailable:
            if kept is None:
                raise
            return kept[0]
        if kept is not None:
            history = kept[0].merged(history)
        _keep(store, instance_type, zone, history, now)
        return history

    def _asked_once(self, instance_type: str, zone: str, since: float, now: float) -> PriceHistory:
        failed_at, words = self._failed.get((instance_type, zone), (None, ""))
        if failed_at is not None and time.monotonic() - failed_at < ASK_AGAIN_AFTER_S:
            raise PriceUnavailable(words)
        try:
            return spot_price_history(instance_type, zone, since, now)
        except PriceUnavailable as error:
            self._failed[instance_type, zone] = (time.monotonic(), str(error))
            raise


def spot_price_history(instance_type: str, zone: str, begin: float, end: float) -> PriceHistory:
    """Ask AWS: the price at `begin` and every change until `end`.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html:
    prices "in effect since the specified start time" come with the time of their last change.

    Raises:
        PriceUnavailable: no boto3, no credentials, no answer, or no such type in that zone.
    """
    about = f"spot price of {instance_type} in {zone}"
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise PriceUnavailable(f"{about}: needs boto3; `pip install boto3`") from error
    try:
        pages = (
            _client(zone)
            .get_paginator("describe_spot_price_history")
            .paginate(
                InstanceTypes=[instance_type],
                AvailabilityZone=zone,
                ProductDescriptions=[PRODUCT],
                StartTime=begin,
                EndTime=end,
            )
        )
        entries = [entry for page in pages for entry in page["SpotPriceHistory"]]
    except (BotoCoreError, ClientError) as error:
        way_out = f"give price.usd_per_hour or the node label saeq-usd-per-hour ({error})"
        raise PriceUnavailable(f"{about}: AWS does not say; {way_out}") from error
    if not entries:
        raise PriceUnavailable(f"{about}: AWS lists none; check the node's labels")
    return PriceHistory.of((e["Timestamp"].timestamp(), float(e["SpotPrice"])) for e in entries)


@dataclass(frozen=True)
class SpotPrice:
    """What a machine costs on the spot market in one zone."""

    usd_per_hour: float
    zone: str
    since: float
    """When it last changed, seconds since 1970."""


def spot_prices_now(
    instance_types: Sequence[str], regions: Sequence[str], now: float
) -> dict[str, SpotPrice]:
    """The cheapest zone of each type that any of the regions has; all regions asked side by side.

    Raises:
        PriceUnavailable: no boto3, no credentials, or not one region answers.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise PriceUnavailable("needs boto3; `pip install 'saeq[aws]'`") from error
    try:
        if boto3.Session().get_credentials() is None:
            raise PriceUnavailable("no AWS credentials here")
        clients = [_client(region) for region in regions]
        with ThreadPoolExecutor(max(len(regions), 1)) as threads:
            answers = list(threads.map(lambda one: _in_region(one, instance_types, now), clients))
    except (BotoCoreError, ClientError) as error:
        raise PriceUnavailable(f"AWS does not say ({error})") from error
    cheapest: dict[str, SpotPrice] = {}
    for name, price in (pair for answer in answers for pair in answer):
        if name not in cheapest or price.usd_per_hour < cheapest[name].usd_per_hour:
            cheapest[name] = price
    return cheapest


def _in_region(
    client: Any, instance_types: Sequence[str], now: float
) -> list[tuple[str, SpotPrice]]:
    """The price now of each type in each zone: with StartTime now, the last change before it."""
    pages = client.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=list(instance_types), ProductDescriptions=[PRODUCT], StartTime=now
    )
    newest: dict[tuple[str, str], SpotPrice] = {}
    for entry in (entry for page in pages for entry in page["SpotPriceHistory"]):
        name, zone = entry["InstanceType"], entry["AvailabilityZone"]
        price = SpotPrice(float(entry["SpotPrice"]), zone, entry["Timestamp"].timestamp())
        if (name, zone) not in newest or newest[name, zone].since < price.since:
            newest[name, zone] = price
    return [(name, price) for (name, _), price in newest.items()]


def _client(zone: str) -> Any:
    import boto3
    from botocore.config import Config

    region = _REGION.match(zone)
    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    return boto3.client("ec2", region_name=region[0] if region else zone, config=config)


def _kept(store: Store, instance_type: str, zone: str) -> tuple[PriceHistory, float] | None:
    """(history, when it was asked for) from the store."""
    try:
        kept = store.read_json(store.layout.prices(instance_type, zone))
        changes = [(float(at), float(usd)) for at, usd in kept["changes"]]
        return (PriceHistory.of(changes), float(kept["asked_at"])) if changes else None
    except (KeyMissing, Damaged, KeyError, TypeError, ValueError):
        return None


def _keep(
    store: Store, instance_type: str, zone: str, history: PriceHistory, asked_at: float
) -> None:
    value = {
        "instance_type": instance_type,
        "zone": zone,
        "product": PRODUCT,
        "asked_at": asked_at,
        "changes": [list(change) for change in history.changes],
    }
    store.write_json(store.layout.prices(instance_type, zone), value)
