"""Ray's own AWS provider brings up what cluster.yaml describes, against an EC2 that plays along."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml
from botocore.exceptions import ClientError

from tests.cluster.cluster_file import ROOT, cluster_text, filled_in, head, workers
from tests.cluster.ec2 import REGION, Ec2, fake_ec2

pytestmark = pytest.mark.cluster

ZONES = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2]:
    """An account in which `prepare.py` was run once; this process takes it for AWS."""
    with fake_ec2() as ec2, pytest.MonkeyPatch.context() as patch:
        for name, value in ec2.environment.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("AWS_PROFILE", raising=False)
        program = [sys.executable, str(ROOT / "deploy" / "aws" / "prepare.py")]
        subprocess.run(
            [*program, "my-bucket", "--address", "203.0.113.7"],
            check=True,
            capture_output=True,
            timeout=120,
        )
        ec2.requests.clear()
        yield ec2


@pytest.fixture(scope="module")
def ready(account: Ec2) -> tuple[dict[str, Any], set[str]]:
    """cluster.yaml after all that `ray up` does to it before a start, and what it asked AWS for."""
    config = bootstrapped(filled_in(_group(account)))
    return config, {request.get("Action", "") for request in account.requests}


@pytest.fixture
def cluster(ready: tuple[dict[str, Any], set[str]]) -> dict[str, Any]:
    return copy.deepcopy(ready[0])


@pytest.fixture
def ec2(account: Ec2) -> Ec2:
    """The account, with nothing running in it."""
    running = [one["InstanceId"] for one in _instances(account)]
    if running:
        account.client().terminate_instances(InstanceIds=running)
    account.sold_out.clear()
    account.requests.clear()
    return account


def bootstrapped(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.aws import config as aws_config
    from ray.autoscaler._private.aws import utils
    from ray.autoscaler._private.commands import _bootstrap_config

    utils.resource_cache.cache_clear()  # Ray keeps clients by region, and with them the endpoint
    utils.client_cache.cache_clear()
    aws_config._get_subnets_or_die.cache_clear()
    return dict(_bootstrap_config(config, no_config_cache=True))


def provider_of(config: dict[str, Any]) -> Any:
    from ray.autoscaler._private.providers import _get_node_provider

    return _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)


def tags_of(kind: str, node_type: str) -> dict[str, str]:
    """As Ray's launcher writes them."""
    from ray.autoscaler import tags

    return {
        tags.TAG_RAY_NODE_KIND: kind,
        tags.TAG_RAY_USER_NODE_TYPE: node_type,
        tags.TAG_RAY_NODE_NAME: f"ray-saeq-{kind}",
        tags.TAG_RAY_LAUNCH_CONFIG: "of-a-test",
        tags.TAG_RAY_NODE_STATUS: tags.STATUS_UNINITIALIZED,
    }


def start(provider: Any, config: dict[str, Any], node_type: str, count: int = 1) -> list[str]:
    """Start machines of a type; their ids."""
    kind = "head" if node_type == config["head_node_type"] else "worker"
    node_config = config["available_node_types"][node_type]["node_config"]
    return list(provider.create_node(node_config, tags_of(kind, node_type), count))


def _instances(ec2: Ec2) -> list[dict[str, Any]]:
    wanted = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = ec2.client().describe_instances(Filters=wanted)["Reservations"]
    return [one for reservation in found for one in reservation["Instances"]]


def _instance(ec2: Ec2, node: str) -> dict[str, Any]:
    found = ec2.client().describe_instances(InstanceIds=[node])["Reservations"]
    return dict(found[0]["Instances"][0])


def _group(ec2: Ec2) -> str:
    wanted = [{"Name": "group-name", "Values": ["saeq"]}]
    [group] = ec2.client().describe_security_groups(Filters=wanted)["SecurityGroups"]
    return str(group["GroupId"])


def _tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def test_ray_adds_no_role_no_group_and_no_image_of_its_own(
    ec2: Ec2, ready: tuple[dict[str, Any], set[str]]
) -> None:
    cluster, made = ready
    assert "DescribeSubnets" in made
    assert "CreateSecurityGroup" not in made
    assert "AuthorizeSecurityGroupIngress" not in made
    assert not made & {"CreateRole", "AttachRolePolicy", "CreateInstanceProfile"}
    for each in cluster["available_node_types"].values():
        assert each["node_config"]["ImageId"].startswith("resolve:ssm:/aws/service/")
        assert each["node_config"]["SecurityGroupIds"] == [_group(ec2)]


def test_a_group_that_was_not_filled_in_stops_ray_up(
    ec2: Ec2, capsys: pytest.CaptureFixture[str]
) -> None:
    unfilled = yaml.safe_load(cluster_text())
    with pytest.raises((click.ClickException, AssertionError, ClientError)):
        bootstrapped(unfilled)
    assert "Failed to detect a security group" in "".join(capsys.readouterr())
    assert not ec2.asked("RunInstances") and not ec2.asked("CreateSecurityGroup")


def test_every_type_may_be_started_in_every_zone(ec2: Ec2, cluster: dict[str, Any]) -> None:
    for each in cluster["available_node_types"].values():
        zones = [ec2.zone_of_subnet[subnet] for subnet in each["node_config"]["SubnetIds"]]
        assert zones == ZONES


def test_what_ec2_says_of_a_type_agrees_with_the_file(cluster: dict[str, Any]) -> None:
    """EC2 knows cores and GPUs; the file writes them down for those who read it."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    bare = {**cluster, "available_node_types": {}}
    for name, each in cluster["available_node_types"].items():
        bare["available_node_types"][name] = {**each, "resources": {}}
    detected = AWSNodeProvider.fillout_available_node_types_resources(bare)
    for name, each in workers(cluster).items():
        found = detected["available_node_types"][name]["resources"]
        assert each["resources"] == found
        assert found["memory"] > 0


def test_the_head_is_on_demand_and_workers_are_spot(ec2: Ec2, cluster: dict[str, Any]) -> None:
    provider = provider_of(cluster)
    [first] = start(provider, cluster, "head")
    assert "InstanceMarketOptions.MarketType" not in ec2.asked("RunInstances")[-1]
    assert "InstanceLifecycle" not in _instance(ec2, first)
    for name in workers(cluster):
        [node] = start(provider, cluster, name)
        request = ec2.asked("RunInstances")[-1]
        assert request["InstanceMarketOptions.MarketType"] == "spot"
        spot = "InstanceMarketOptions.SpotOptions"
        assert request[f"{spot}.SpotInstanceType"] == "one-time"
        assert request[f"{spot}.InstanceInterruptionBehavior"] == "terminate"
        assert f"{spot}.MaxPrice" not in request
        assert _instance(ec2, node)["InstanceLifecycle"] == "spot"


def test_a_machine_has_its_profile_its_tags_its_disk_and_imdsv2(
    ec2: Ec2, cluster: dict[str, Any]
) -> None:
    provider = provider_of(cluster)
    nodes = {name: start(provider, cluster, name)[0] for name in ("head", "p4d")}
    for name, node in nodes.items():
        instance, request = _instance(ec2, node), ec2.asked("RunInstances")
        profile = instance["IamInstanceProfile"]["Arn"]
        assert profile.endswith("/saeq-head" if name == "head" else "/saeq-worker")
        assert _tags(instance)["ray-cluster-name"] == "saeq"
        assert _tags(instance)["ray-user-node-type"] == name
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [_group(ec2)]
        assert instance["KeyName"] == f"ray-autoscaler_{REGION}"
    assert _tags(_instance(ec2, nodes["head"]))["saeq-usd-per-hour"] == "0.192"
    for sent in request:
        assert sent["MetadataOptions.HttpTokens"] == "required"
        assert sent["MetadataOptions.HttpPutResponseHopLimit"] == "1"
        assert sent["BlockDeviceMapping.1.DeviceName"] == "/dev/sda1"
        assert sent["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
        assert sent["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
        assert sent["ImageId"].startswith("resolve:ssm:")


def test_a_zone_that_is_sold_out_is_passed_over(ec2: Ec2, cluster: dict[str, Any]) -> None:
    provider = provider_of(cluster)
    ec2.sold_out |= {ZONES[0], ZONES[1]}
    [node] = start(provider, cluster, "p4d")
    assert ec2.zones_tried() == ZONES[:3]
    assert _instance(ec2, node)["Placement"]["AvailabilityZone"] == ZONES[2]


def test_every_zone_is_tried_before_a_launch_is_given_up(ec2: Ec2, cluster: dict[str, Any]) -> None:
    from ray.autoscaler.node_launch_exception import NodeLaunchException

    provider = provider_of(cluster)
    ec2.sold_out |= set(ZONES)
    with pytest.raises(NodeLaunchException) as failed:
        start(provider, cluster, "p4d")
    assert failed.value.category == "InsufficientInstanceCapacity"
    assert ec2.zones_tried() == ZONES
    ec2.sold_out.clear()
    assert start(provider, cluster, "p4d")


def test_a_machine_is_taken_away_for_good(ec2: Ec2, cluster: dict[str, Any]) -> None:
    provider = provider_of(cluster)
    [first] = start(provider, cluster, "g5")
    [second] = start(provider, cluster, "g5")
    [boss] = start(provider, cluster, "head")
    assert set(provider.non_terminated_nodes({})) == {first, second, boss}
    provider.terminate_node(first)
    assert set(provider.non_terminated_nodes({})) == {second, boss}
    provider.terminate_nodes([second, boss])
    assert provider.non_terminated_nodes({}) == []
    assert not ec2.asked("StopInstances")  # a stopped machine goes on paying for its disk
    assert _instance(ec2, boss)["State"]["Name"] in ("shutting-down", "terminated")


def test_the_head_may_do_all_that_its_autoscaler_does(ec2: Ec2, cluster: dict[str, Any]) -> None:
    """What Ray's provider asks EC2 for, as autoscaler v2 drives it, is in the head's policy."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter

    on_head = json.loads(json.dumps({k: v for k, v in cluster.items() if k != "head_node"}))
    on_head["auth"]["ssh_private_key"] = cluster["auth"]["ssh_private_key"]
    config = AutoscalingConfig(on_head, skip_content_hash=True)
    ec2.requests.clear()
    provider = provider_of(on_head)
    adapter = NodeProviderAdapter(provider, _Fixed(config))
    adapter._launch_nodes_by_type("g5", 1, "request-1")
    assert adapter.poll_errors() == []
    [(node, instance)] = adapter.get_non_terminated().items()
    assert (instance.node_type, instance.request_id) == ("g5", "request-1")
    assert provider.internal_ip(node)
    provider.set_node_tags(node, {"ray-node-status": "up-to-date"})
    adapter._do_terminate([node], "request-2")
    assert adapter.get_non_terminated() == {}
    asked = {f"ec2:{request['Action']}" for request in ec2.requests if "Action" in request}
    policy = json.loads((ROOT / "deploy" / "aws" / "head-policy.json").read_text())
    allowed = {action for each in policy["Statement"] for action in _listed(each["Action"])}
    assert asked
    assert asked <= allowed


def test_setup_runs_twice_on_a_worker_of_autoscaler_v2(cluster: dict[str, Any]) -> None:
    """A reason for every setup command to be harmless the second time; Ray may mend it one day."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    on_head = {key: value for key, value in cluster.items() if key != "head_node"}
    commands = AutoscalingConfig(on_head, skip_content_hash=True).get_worker_setup_commands("g5")
    assert all(commands.count(command) == 2 for command in filled_in()["setup_commands"])
    assert commands[-1] == filled_in()["worker_setup_commands"][-1]


def test_node_types_on_the_head_keep_labels_and_priorities(cluster: dict[str, Any]) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    on_head = {key: value for key, value in cluster.items() if key != "head_node"}
    types = AutoscalingConfig(on_head, skip_content_hash=True).get_node_type_configs()
    assert types["head"].max_worker_nodes == 1  # itself
    assert types["head"].resources == head(cluster)["resources"] == {"CPU": 0, "GPU": 0}
    assert types["p5"].labels["saeq-instance-type"] == "p5.48xlarge"
    assert types["g6e"].priority > types["g5"].priority > types["p4d"].priority


class _Fixed:
    """A reader of one configuration that never changes."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def get_cached_autoscaling_config(self) -> Any:
        return self._config

    def refresh_cached_autoscaling_config(self) -> None:
        """It is what it is."""


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
