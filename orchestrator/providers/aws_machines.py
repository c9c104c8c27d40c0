"""AWS: which machines of a Ray cluster are running in this account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CLUSTER_TAG = "ray-cluster-name"
"""Ray's cluster launcher writes it on all that it starts."""
OWN_TAGS = "saeq-"


class MachinesUnknown(ValueError):
    """AWS could not be asked, or did not say."""


@dataclass(frozen=True)
class AwsMachine:
    """One that costs money now."""

    instance: str
    cluster: str
    labels: Mapping[str, str]
    """What a Ray node of it would be labelled with: provider, type, zone, market, price."""


def aws_region() -> str:
    """Region that credentials or the environment name; empty for none."""
    try:
        import boto3
    except ImportError:
        return ""
    return boto3.Session().region_name or ""


def machines_in(regions: Iterable[str]) -> list[AwsMachine]:
    """Machines with Ray's tag that are pending, running, or not quite gone yet.

    Raises:
        MachinesUnknown: no boto3, no credentials, no right to look, or no answer within seconds.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise MachinesUnknown("needs boto3; pip install 'saeq[aws]'") from error
    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    session, found = boto3.Session(), []
    try:
        if session.get_credentials() is None:
            raise MachinesUnknown("no AWS credentials here")
        for region in sorted(set(regions)):
            found += list(_machines(session.client("ec2", region_name=region, config=config)))
    except (BotoCoreError, ClientError) as error:
        raise MachinesUnknown(f"EC2 does not say: {error}") from error
    return found


def _machines(client: Any) -> Iterator[AwsMachine]:
    wanted = [
        {"Name": "tag-key", "Values": [CLUSTER_TAG]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping"]},
    ]
    for page in client.get_paginator("describe_instances").paginate(Filters=wanted):
        for reservation in page["Reservations"]:
            yield from map(_machine, reservation["Instances"])


def _machine(instance: Mapping[str, Any]) -> AwsMachine:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    labels = {
        "saeq-provider": "aws",
        "saeq-instance-type": instance["InstanceType"],
        "saeq-zone": instance["Placement"]["AvailabilityZone"],
        "saeq-market-type": instance.get("InstanceLifecycle", "on-demand"),
    }
    own = {key: value for key, value in tags.items() if key.startswith(OWN_TAGS)}
    return AwsMachine(instance["InstanceId"], tags.get(CLUSTER_TAG, ""), {**labels, **own})
