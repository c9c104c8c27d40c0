"""Machines that can be had and what they cost: AWS's types, a price file, a cluster file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.units import format_duration
from orchestrator.money.node_price import ACCELERATOR_LABEL, PRICE_LABEL
from orchestrator.money.prices import PRICES_AS_OF, typical_usd_per_hour
from orchestrator.planning.autoscaler_offers import Offer as ClusterOffer
from orchestrator.planning.autoscaler_offers import Offers as ClusterOffers
from orchestrator.planning.devices import DeviceProfile
from orchestrator.planning.instance_types import gpu_of_instance, gpus_called
from orchestrator.planning.node_types import INSTANCE_LABEL
from orchestrator.planning.price_file import PricedMachine
from orchestrator.providers.prices.aws_spot import SpotPrice
from orchestrator.spec.faults import Fault, SpecFaults

# GPUs, and dollars an hour on demand, us-east-1, Linux (aws.amazon.com/ec2/pricing/on-demand). Of
# each family those that differ in the number of GPUs; not .xlarge, whose 16 GB of main memory are
# little beside a language model.
AWS_TYPES: Mapping[str, tuple[int, float]] = {
    "g4dn.2xlarge": (1, 0.752),
    "g5.2xlarge": (1, 1.212),
    "g5.12xlarge": (4, 5.672),
    "g5.48xlarge": (8, 16.288),
    "g6.2xlarge": (1, 0.978),
    "g6.12xlarge": (4, 4.602),
    "g6e.2xlarge": (1, 2.242),
    "g6e.12xlarge": (4, 10.493),
    "p4d.24xlarge": (8, 21.96),
    "p4de.24xlarge": (8, 27.45),
    "p5.48xlarge": (8, 55.04),
    "p5en.48xlarge": (8, 63.30),
}
LISTED = f"AWS on-demand list price, us-east-1, {PRICES_AS_OF}"
TYPICAL = f"typical price of its GPUs, {PRICES_AS_OF}"
SPOT_NOW = "AWS spot, asked just now"


@dataclass(frozen=True)
class MachineOffer:
    """One kind of machine at one price."""

    name: str
    device: str
    """A name of `orchestrator.planning.devices.GPUS`."""
    num_devices: int
    usd_per_hour: float | None
    """Of the machine as a whole; None: nobody says."""
    source: str
    """Who says that price, and how old it is."""
    provider: str = ""
    zone: str = ""
    spot: bool = False
    is_estimate: bool = False
    """A list price that may be nobody's."""
    node_type: str = ""
    """Its name in the cluster file, if it is there."""


def aws_offers(
    spot: Mapping[str, SpotPrice], cluster: ClusterOffers | None = None
) -> list[MachineOffer]:
    """AWS's types, and those of a cluster file.

    Args:
        spot: the cheapest zone's price of each type, as far as AWS told.
        cluster: node types that `ray up` may bring.
    """
    named = _by_instance_type(cluster)
    types = {name: count for name, (count, _) in AWS_TYPES.items()}
    types |= {
        name: count
        for name, (_, offer) in named.items()
        if name not in types and (count := int(offer.resources.get("GPU", 0)))
    }
    offers = []
    for name, count in types.items():
        gpu = gpu_of_instance(name)
        if gpu is not None:
            node_type, offer = named.get(name, ("", None))
            usd, source, zone = _aws_price(name, count, gpu.name, spot.get(name), offer)
            offers.append(
                MachineOffer(
                    name=name,
                    device=gpu.name,
                    num_devices=count,
                    usd_per_hour=usd,
                    source=source,
                    provider="aws",
                    zone=zone,
                    spot=bool(zone),
                    is_estimate=source in (LISTED, TYPICAL),
                    node_type=node_type,
                )
            )
    return offers


def _aws_price(
    name: str,
    num_devices: int,
    device: str,
    spot: SpotPrice | None,
    offer: ClusterOffer | None,
) -> tuple[float | None, str, str]:
    """(dollars an hour, who says so, zone): spot now, the cluster file's label, else the list."""
    if spot is not None:
        return spot.usd_per_hour, SPOT_NOW, spot.zone
    labelled = (offer.labels if offer is not None else {}).get(PRICE_LABEL, "")
    try:
        return float(labelled), f"label {PRICE_LABEL} in the cluster file", ""
    except ValueError:
        pass
    if name in AWS_TYPES:
        return AWS_TYPES[name][1], LISTED, ""
    typical = typical_usd_per_hour(device)
    return (None if typical is None else typical * num_devices), TYPICAL, ""


def file_offers(
    machines: Sequence[PricedMachine], path: Path, now: float | None = None
) -> list[MachineOffer]:
    """The machines of a price file; its age is that of the file's last change."""
    now = time.time() if now is None else now
    age = format_duration(max(now - path.stat().st_mtime, 0.0))
    return [
        MachineOffer(
            name=each.name,
            device=each.device,
            num_devices=each.devices,
            usd_per_hour=each.usd_per_hour,
            source=f"{path.name}, changed {age} ago",
            provider=each.provider,
            zone=each.zone,
            spot=each.spot,
        )
        for each in machines
    ]


def cluster_file_offers(
    cluster: ClusterOffers, known: Sequence[MachineOffer], source: str
) -> list[MachineOffer]:
    """Node types of a cluster file whose machines AWS's list lacks: another provider's, or ours."""
    there = {offer.node_type for offer in known}
    offers = []
    for name, offer in cluster.available_node_types.items():
        count = int(offer.resources.get("GPU", 0))
        gpu = _gpu_of(offer)
        if name in there or not count or gpu is None:
            continue
        price = offer.labels.get(PRICE_LABEL, "")
        typical = typical_usd_per_hour(gpu.name)
        usd = _number(price) if price else None if typical is None else typical * count
        offers.append(
            MachineOffer(
                name=offer.instance_type or name,
                device=gpu.name,
                num_devices=count,
                usd_per_hour=usd,
                source=f"label {PRICE_LABEL} in {source}" if price else TYPICAL,
                provider=offer.labels.get("saeq-provider", ""),
                spot=offer.labels.get("saeq-market-type") == "spot",
                is_estimate=not price,
                node_type=name,
            )
        )
    return offers


def _gpu_of(offer: ClusterOffer) -> DeviceProfile | None:
    """What its labels say; None where they leave it open."""
    named = gpu_of_instance(offer.labels.get(INSTANCE_LABEL, ""))
    meant = gpus_called(offer.labels.get(ACCELERATOR_LABEL, ""))
    return named or (meant[0] if len(meant) == 1 else None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _by_instance_type(cluster: ClusterOffers | None) -> dict[str, tuple[str, ClusterOffer]]:
    if cluster is None:
        return {}
    types = cluster.available_node_types.items()
    return {offer.instance_type: (name, offer) for name, offer in types if offer.instance_type}


def read_cluster_file(path: Path) -> tuple[ClusterOffers, str]:
    """The node types of a `ray up` file, and its region ("" where it names none).

    Raises:
        SpecFaults: there is no such file, or it is none of a cluster.
    """
    from pydantic import ValidationError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from orchestrator.spec.sweep_file import read_text

    text = read_text(path)
    way_out = "name the file that `ray up` takes"
    try:
        data = YAML(typ="safe", pure=True).load(text)
        offers = ClusterOffers.model_validate(data)
    except (YAMLError, ValidationError) as error:
        first = str(error).splitlines()[0]
        fault = Fault((), f"is no cluster file ({first})", way_out=way_out)
        raise SpecFaults([fault], str(path)) from error
    if not offers.available_node_types:
        fault = Fault(("available_node_types",), "is missing or empty", way_out=way_out)
        raise SpecFaults([fault], str(path))
    provider = data.get("provider") or {}
    return offers, str(provider.get("region", "")) if provider.get("type") == "aws" else ""
