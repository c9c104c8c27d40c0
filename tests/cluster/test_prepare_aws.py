"""`deploy/aws/prepare.py` makes what cluster.yaml names, again and again, and takes it away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from orchestrator.store import Store
from tests.cluster.cluster_file import ROOT, cluster_text
from tests.cluster.ec2 import Ec2, fake_ec2

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def aws() -> Iterator[Ec2]:
    with fake_ec2() as ec2:
        yield ec2


def prepare(aws: Ec2, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "aws" / "prepare.py"), *arguments],
        env={**aws.environment, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def printed(aws: Ec2) -> str:
    """What it says when it is run for the second time, from another address."""
    for address in ("203.0.113.7", "203.0.113.9/32"):
        answer = prepare(aws, "my-bucket", "--prefix", "night/", "--address", address)
        assert answer.returncode == 0, answer.stderr
    return answer.stdout


def _rules(aws: Ec2) -> list[dict[str, Any]]:
    wanted = [{"Name": "group-name", "Values": ["saeq"]}]
    [group] = aws.client().describe_security_groups(Filters=wanted)["SecurityGroups"]
    return list(group["IpPermissions"])


def test_its_lines_fill_in_the_file(aws: Ec2, printed: str) -> None:
    lines = {line.split(":")[0].strip(): line for line in printed.splitlines() if ": &" in line}
    assert set(lines) == {"region", "zones", "security_group", "store"}
    filled = [
        lines.get(line.split(":")[0].strip(), line) if ": &" in line else line
        for line in cluster_text().splitlines()
    ]
    config = yaml.safe_load("\n".join(filled))
    assert "REPLACE-ME" not in "\n".join(filled)
    assert config["setup_commands"][0].startswith("echo SAEQ_STORE=s3://my-bucket/night |")
    zones = config["provider"]["availability_zone"].split(",")
    assert set(zones) <= set(aws.zone_of_subnet.values())
    [group] = config["available_node_types"]["p5"]["node_config"]["SecurityGroupIds"]
    assert aws.client().describe_security_groups(GroupIds=[group])["SecurityGroups"]


def test_the_group_lets_in_its_members_and_the_newest_address(aws: Ec2, printed: str) -> None:
    assert "from 203.0.113.9/32 only" in printed
    by_protocol = {rule["IpProtocol"]: rule for rule in _rules(aws)}
    assert set(by_protocol) == {"tcp", "-1"}
    ssh = by_protocol["tcp"]
    assert (ssh["FromPort"], ssh["ToPort"]) == (22, 22)
    assert [one["CidrIp"] for one in ssh["IpRanges"]] == ["203.0.113.9/32"]
    assert by_protocol["-1"]["IpRanges"] == [] and by_protocol["-1"]["UserIdGroupPairs"]


@pytest.mark.parametrize("role", ["saeq-head", "saeq-worker"])
def test_a_role_has_its_rights_with_every_name_filled_in(aws: Ec2, printed: str, role: str) -> None:
    del printed
    iam = aws.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    assert set(names) == ({"worker", "head"} if role == "saeq-head" else {"worker"})
    for name in names:
        policy = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        text = json.dumps(policy)
        placeholders = ("BUCKET", "PREFIX", "REGION", "ACCOUNT", "CLUSTER")
        assert not [word for word in placeholders if word in text]
        assert ("arn:aws:s3:::my-bucket/night/*" in text) == (name == "worker")
    profile = iam.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]
    assert [one["RoleName"] for one in profile["Roles"]] == [role]


def test_the_bucket_is_closed_and_a_store_opens_in_it(
    aws: Ec2, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del printed
    s3 = aws.client("s3")
    closed = s3.get_public_access_block(Bucket="my-bucket")["PublicAccessBlockConfiguration"]
    assert all(closed.values()) and len(closed) == 4
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket="my-bucket")["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    store = Store.open("s3://my-bucket/night")
    store.write_json("queue/probe.json", {})
    assert store.read_json("queue/probe.json") == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--address", "0.0.0.0/0"], "to a /16 at most"),
        (["--address", "the office"], "must be an IPv4 address"),
        (["--address", "203.0.113.7", "--region", "eu-west-1"], "traffic between regions"),
    ],
)
def test_what_would_be_open_or_dear_is_refused(
    aws: Ec2, printed: str, arguments: list[str], said: str
) -> None:
    del printed
    rules = _rules(aws)
    answer = prepare(aws, "my-bucket", *arguments)
    assert answer.returncode == 2
    assert said in " ".join(answer.stderr.split())
    assert _rules(aws) == rules


def test_all_but_the_bucket_is_taken_away_again(aws: Ec2, printed: str) -> None:
    del printed
    for _ in range(2):
        answer = prepare(aws, "my-bucket", "--remove")
        assert answer.returncode == 0, answer.stderr
    assert aws.client("iam").list_instance_profiles()["InstanceProfiles"] == []
    roles = {role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]}
    assert not roles & {"saeq-head", "saeq-worker"}
    groups = aws.client().describe_security_groups()["SecurityGroups"]
    assert "saeq" not in {group["GroupName"] for group in groups}
    assert aws.client("s3").head_bucket(Bucket="my-bucket")


def test_without_credentials_it_says_so_in_one_line() -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "deploy/aws/prepare.py"), "b", "--address", "203.0.113.7"],
        env={"PATH": "/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        "AWS refused or did not answer: Unable to locate credentials"
    ]
