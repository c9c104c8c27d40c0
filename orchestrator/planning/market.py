"""Gathers what machines cost now: asks AWS, reads price and cluster files; says who was silent."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.planning.offers import (
    AWS_TYPES,
    MachineOffer,
    aws_offers,
    cluster_file_offers,
    file_offers,
    read_cluster_file,
)
from orchestrator.planning.price_file import read_price_file
from orchestrator.providers.prices import PriceUnavailable
from orchestrator.providers.prices.aws_spot import SpotPrice, spot_prices_now

REGIONS = ("us-east-1", "us-east-2", "us-west-2")
"""Asked where nobody names one: they have all of the listed types."""


def offers_of_now(
    regions: Sequence[str], prices: Path | None = None, cluster: Path | None = None
) -> tuple[list[MachineOffer], list[str]]:
    """All machines with their prices, and notes on who was not asked.

    Args:
        regions: of AWS; empty: the cluster file's, else the environment's, else some.
        prices: a price file.
        cluster: a file of `ray up`.

    Raises:
        SpecFaults: a file cannot be read or is wrong.
    """
    now = time.time()
    own = [] if prices is None else file_offers(read_price_file(prices), prices, now)
    offered, region = (None, "") if cluster is None else read_cluster_file(cluster)
    asked = list(regions) or ([region] if region else _usual_regions())
    types = list(AWS_TYPES)
    if offered is not None:
        named = [each.instance_type for each in offered.available_node_types.values()]
        types = list(dict.fromkeys([*types, *filter(None, named)]))
    spot, notes = _spot(types, asked, now)
    in_own = {each.name for each in own}
    of_aws = [
        each
        for each in aws_offers(spot, offered)
        # What somebody wrote down counts more than a list price.
        if not (each.is_estimate and each.name in in_own)
    ]
    others = [] if offered is None else cluster_file_offers(offered, of_aws, str(cluster))
    return [*of_aws, *others, *own], notes


def _usual_regions() -> list[str]:
    found = next(
        (os.environ[n] for n in ("AWS_REGION", "AWS_DEFAULT_REGION") if n in os.environ), ""
    )
    return [found] if found else list(REGIONS)


def _spot(
    types: Sequence[str], regions: Sequence[str], now: float
) -> tuple[dict[str, SpotPrice], list[str]]:
    try:
        found = spot_prices_now(types, regions, now)
    except PriceUnavailable as error:
        return {}, [f"spot prices of now: {error}; ~ is a list price, spot is often half of it"]
    if not found:
        return {}, [f"spot prices of now: AWS lists none in {', '.join(regions)}"]
    missing = [name for name in types if name in AWS_TYPES and name not in found]
    if missing:
        where = ", ".join(regions)
        return found, [f"no spot price in {where}: {', '.join(missing)}; ~ is a list price"]
    return found, []
