"""What a device of a node costs an hour, and who says so: the one place that decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from orchestrator.money.prices import PRICE_BASIS, typical_usd_per_hour

if TYPE_CHECKING:
    from orchestrator.log.state import TrialState
    from orchestrator.store import Store

logger = logging.getLogger(__name__)

PRICE_LABEL = "saeq-usd-per-hour"
"""Label of a Ray node: dollars an hour for the node as a whole."""
PROVIDER_LABEL = "saeq-provider"
"""Label of a Ray node: who rents it out, a name of `orchestrator.providers.prices`."""
ACCELERATOR_LABEL = "ray.io/accelerator-type"

FROM_SWEEP = "price.usd_per_hour of the sweep"
FROM_LABEL = f"label {PRICE_LABEL} of the node"
NOT_KNOWN = "no price known; give price.usd_per_hour"


@dataclass(frozen=True)
class NodePrice:
    """Price of one device of a node."""

    usd_per_hour: float | None
    """None: nobody knows."""
    source: str
    """Where it comes from, in words."""

    @property
    def is_estimate(self) -> bool:
        """Whether nobody asked for that price: it is a typical one."""
        return is_estimate(self.source)

    def noted(self) -> dict[str, float | str]:
        """The fields of a `Started` event: no source where no price is known."""
        if self.usd_per_hour is None:
            return {"usd_per_hour": 0.0, "price_source": ""}
        return {"usd_per_hour": self.usd_per_hour, "price_source": self.source}


def is_estimate(source: str) -> bool:
    """Whether a price with this source is a typical one and nobody's own."""
    return source.startswith("typical")


def rests_on_estimate(trial: TrialState) -> bool:
    """Whether a typical price went into a trial's dollars."""
    return any(is_estimate(one.price_source) for one in trial.epoch_times)


def node_price(
    own_usd_per_hour: float,
    labels: Mapping[str, str],
    *,
    num_devices: float = 1,
    device: str = "",
    store: Store | None = None,
    now: float | None = None,
) -> NodePrice:
    """Decide on a price: the sweep's own, the node's label, its provider's, else a typical one.

    Args:
        own_usd_per_hour: the sweep's `price.usd_per_hour`; 0 stands for "not given".
        labels: of the Ray node; empty where there is none yet (`saeq plan`).
        num_devices: over which the price of the node as a whole is divided.
        device: name of the device, if known; else Ray's label for it counts.
        store: where providers keep what they were told; None: providers are not asked.
        now: seconds since 1970.
    """
    if own_usd_per_hour > 0:
        return NodePrice(own_usd_per_hour, FROM_SWEEP)
    whole = _labelled(labels)
    if whole is None and store is not None:
        whole = _provided(labels, store, time.time() if now is None else now)
    if whole is not None:
        usd_per_hour, source = whole
        return NodePrice(usd_per_hour / max(num_devices, 1), source)
    typical = typical_usd_per_hour(device or labels.get(ACCELERATOR_LABEL, ""))
    return NodePrice(typical, NOT_KNOWN if typical is None else PRICE_BASIS)


def _labelled(labels: Mapping[str, str]) -> tuple[float, str] | None:
    if PRICE_LABEL not in labels:
        return None
    try:
        usd_per_hour = float(labels[PRICE_LABEL])
    except ValueError:
        usd_per_hour = float("nan")
    if isfinite(usd_per_hour) and usd_per_hour >= 0:
        return usd_per_hour, FROM_LABEL
    rule = f"node label {PRICE_LABEL} must be dollars an hour for the whole node"
    logger.warning('%s; got %r; write --labels="%s=3.2"', rule, labels[PRICE_LABEL], PRICE_LABEL)
    return None


def _provided(labels: Mapping[str, str], store: Store, now: float) -> tuple[float, str] | None:
    if PROVIDER_LABEL not in labels:
        return None
    from orchestrator.providers.prices import PriceUnavailable, provider_named

    try:
        found = provider_named(labels[PROVIDER_LABEL]).price(labels, store, now)
    except PriceUnavailable as error:
        logger.warning("%s", error)
        return None
    return None if found is None else (found.history.usd_per_hour_at(now), found.source)
