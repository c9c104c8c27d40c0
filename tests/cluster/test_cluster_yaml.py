"""cluster.yaml is valid for Ray, answers every known trap, and opens nothing to the world."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster_file import (
    ROOT,
    cluster_text,
    filled_in,
    head,
    prepared,
    workers,
)

DEPLOY = ROOT / "deploy" / "aws"
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
NUM_TRAPS = 12


def commands(*names: str) -> list[str]:
    return [command for name in names for command in filled_in()[name]]


def the_one(part: str, *names: str) -> str:
    """The command that has something in it."""
    [found] = [command for command in commands(*(names or COMMANDS)) if part in command]
    return found


def values(tree: Any) -> Iterator[str]:
    """Everything that is written in a piece of YAML, as text."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield str(key)
            yield from values(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value)
    else:
        yield str(tree)


def test_it_is_valid_for_ray() -> None:
    """With what `ray up` does: its defaults filled in, then its own schema."""
    config = prepared()
    assert config["head_node_type"] in config["available_node_types"]


def test_every_trap_is_answered_by_a_comment() -> None:
    comments = " ".join(re.findall(r"#\s?(.*)", cluster_text()))
    numbers = re.findall(r"Traps? (\d+)(?: and (\d+))?", comments)
    assert {int(n) for pair in numbers for n in pair if n} == set(range(1, NUM_TRAPS + 1))


def test_trap_1_the_image_is_named_and_the_same_on_all_workers() -> None:
    config = prepared()
    images = {each["node_config"]["ImageId"] for each in workers(config).values()}
    assert len(images) == 1
    for image in {*images, head(config)["node_config"]["ImageId"]}:
        assert re.fullmatch(r"(resolve:ssm:/aws/service/\S*24\.04\S*|ami-[0-9a-f]{8,17})", image)


def test_traps_2_and_8_packages_are_pinned_alike_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [ray] = [need for need in project["dependencies"] if need.startswith("ray[")]
    version = ray.partition("==")[2]
    install = the_one("uv pip install", "setup_commands")
    assert f"'ray[default,tune]=={version}'" in install
    assert f"saeq-{project['version']}-py3-none-any.whl" in install
    assert "--python 3.12" in install
    config = prepared()
    for name in ("head_setup_commands", "worker_setup_commands"):  # Ray merged setup_commands in
        assert install in config[name]
    assert "ray-wheels/latest" not in " ".join(values(config))


def test_trap_3_workers_have_a_profile_and_it_is_not_the_head_s() -> None:
    config = prepared()
    profiles = {
        each["node_config"]["IamInstanceProfile"]["Name"] for each in workers(config).values()
    }
    assert profiles == {"saeq-worker"}
    assert head(config)["node_config"]["IamInstanceProfile"] == {"Name": "saeq-head"}


def test_trap_4_nothing_upgrades_itself() -> None:
    [first] = commands("initialization_commands")
    assert "disable --now" in first
    assert {"unattended-upgrades.service", "apt-daily.timer"} <= set(first.split())
    assert not [command for command in commands(*COMMANDS) if re.search(r"\bapt(-get)? ", command)]


def test_traps_5_6_and_7_limits_are_written_down() -> None:
    config = filled_in()
    assert config["max_workers"] > 2
    assert all(0 < each["max_workers"] <= 8 for each in workers(config).values())
    assert all(each["min_workers"] == 0 for each in config["available_node_types"].values())
    assert config["upscaling_speed"] >= config["max_workers"]
    assert 5 < config["idle_timeout_minutes"] <= 30


def test_trap_9_nothing_is_mounted_and_the_store_is_s3() -> None:
    everything = " ".join(commands(*COMMANDS))
    assert not re.search(r"\bmount\b|nfs|efs", everything)
    assert the_one("SAEQ_STORE=") == "echo SAEQ_STORE=s3://my-bucket/saeq | sudo tee /etc/saeq.env"


def test_traps_10_and_11_are_said_in_the_file_and_in_the_document() -> None:
    document = (ROOT / "docs" / "running_on_spot.md").read_text()
    for option in ("--no-config-cache", "--no-restart"):
        assert option in cluster_text()
        assert option in document
    ups = re.findall(r"^\$ ray up .*$", document, re.MULTILINE)
    assert ups
    assert all("--no-config-cache" in line or "--no-restart" in line for line in ups)


def test_trap_12_workers_are_spot_and_the_head_is_not() -> None:
    config = prepared()
    assert "InstanceMarketOptions" not in head(config)["node_config"]
    for each in workers(config).values():
        market = each["node_config"]["InstanceMarketOptions"]
        assert market["MarketType"] == "spot"
        assert "MaxPrice" not in market["SpotOptions"]
    assert config["provider"]["cache_stopped_nodes"] is False


def test_nothing_is_placed_on_the_head() -> None:
    config = prepared()
    assert head(config)["resources"] == {"CPU": 0, "GPU": 0}
    assert head(config)["max_workers"] == 0
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(the_one("ray start --head").split())


def test_the_worker_types_that_were_asked_for_are_there() -> None:
    types = {each["node_config"]["InstanceType"] for each in workers(prepared()).values()}
    assert {"p4d.24xlarge", "p4de.24xlarge", "p5.48xlarge"} <= types
    assert {name.partition(".")[0] for name in types} >= {"g5", "g6e"}


def test_every_type_s_labels_lead_to_its_price() -> None:
    from orchestrator.money.node_price import PRICE_LABEL, PROVIDER_LABEL
    from orchestrator.planning.instance_types import gpu_of_instance
    from orchestrator.providers.prices import PriceProvider
    from orchestrator.providers.prices.aws_spot import MARKET_LABELS, TYPE_LABEL, ZONE_LABELS

    config = prepared()
    for each in config["available_node_types"].values():
        labels = each["labels"]
        assert labels[PROVIDER_LABEL] in PriceProvider.by_name
        assert labels[TYPE_LABEL] == each["node_config"]["InstanceType"]
    for each in workers(config).values():
        assert each["labels"][MARKET_LABELS[0]] == "spot"
        assert PRICE_LABEL not in each["labels"]  # it would outrank the price history
        assert gpu_of_instance(each["labels"][TYPE_LABEL]) is not None
    assert float(head(config)["labels"][PRICE_LABEL]) > 0
    assert "ray.io/availability-zone" in ZONE_LABELS
    assert '"RAY_NODE_ZONE=$zone"' in the_one("imds=")


def test_several_zones_of_one_region_are_tried() -> None:
    provider = prepared()["provider"]
    zones = provider["availability_zone"].split(",")
    assert len(set(zones)) == len(zones) >= 3
    assert all(re.fullmatch(f"{provider['region']}[a-z]", zone) for zone in zones)


def test_disks_are_large_enough_encrypted_and_gone_with_their_machine() -> None:
    config = prepared()
    for name, each in config["available_node_types"].items():
        [disk] = each["node_config"]["BlockDeviceMappings"]
        assert disk["DeviceName"] == "/dev/sda1"
        assert disk["Ebs"]["VolumeSize"] >= (50 if name == "head" else 150)
        assert disk["Ebs"]["DeleteOnTermination"] and disk["Ebs"]["Encrypted"]


def test_nothing_listens_to_the_world() -> None:
    """Every line of the file, with Ray's own defaults filled in where it says nothing."""
    config = prepared()
    everything = " ".join(values(config))
    assert "0.0.0.0" not in everything and "::/0" not in everything
    start = the_one("ray start --head")
    assert "--dashboard-host=127.0.0.1" in start.split()
    assert "--ray-client-server-port" not in start
    assert "security_group" not in config["provider"]  # Ray's own adds ssh for everybody
    for each in config["available_node_types"].values():
        assert each["node_config"]["SecurityGroupIds"] == ["sg-0123456789abcdef0"]
        assert each["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert each["node_config"]["MetadataOptions"]["HttpPutResponseHopLimit"] == 1


def test_ray_s_token_is_on_every_node_and_its_mode_in_every_shell_and_service() -> None:
    config = prepared()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_MODE=token" in the_one("imds=")
    assert "chmod 600 ~/.ray/auth_token" in config["head_setup_commands"]
    assert ". /etc/saeq.env" in the_one(".bashrc")
    for unit in DEPLOY.glob("*.service"):
        assert _unit(unit)["Service"]["EnvironmentFile"] == "/etc/saeq.env"


def test_a_node_that_freezes_or_does_not_come_up_is_given_up_soon() -> None:
    from ray.autoscaler.v2.instance_manager.config import InstanceReconcileConfig

    from orchestrator.serving.ray_settings import HEALTH_CHECKS

    start = the_one("ray start --head")
    assert set(HEALTH_CHECKS) == set(re.findall(r"RAY_health_check_\w+", start))
    for name, value in HEALTH_CHECKS.items():
        assert f"{name}={value}" in start
    defaults = InstanceReconcileConfig()
    for name, default_s in (
        ("RAY_AUTOSCALER_RECONCILE_REQUEST_STATUS_TIMEOUT_S", defaults.request_status_timeout_s),
        ("RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S", defaults.allocate_status_timeout_s),
        (
            "RAY_AUTOSCALER_RECONCILE_RAY_INSTALL_STATUS_TIMEOUT_S",
            defaults.ray_install_status_timeout_s,
        ),
    ):
        given = re.search(rf"{name}=(\d+)", start)
        assert given is not None
        assert 300 <= int(given[1]) < default_s


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_bash(name: str) -> None:
    for command in commands(name):
        subprocess.run(["bash", "-n", "-c", command], check=True, timeout=30)


def test_the_services_call_commands_that_there_are() -> None:
    """Options that a command does not know would leave a unit that restarts for ever."""
    from orchestrator.cli import build_app

    app = build_app()
    for unit in DEPLOY.glob("*.service"):
        words = _unit(unit)["Service"]["ExecStart"].split()
        assert words[0] == "/home/ubuntu/saeq-env/bin/saeq"
        command, rest = _command(app, words[1:])
        known = {option for each in command.params for option in each.opts}
        assert {word for word in rest if word.startswith("--")} <= known


def test_the_services_that_are_started_are_installed_and_outlive_a_crash() -> None:
    started = {
        "saeq-serve": ("head_setup_commands", "head_start_ray_commands"),
        "saeq-node-watch": ("worker_setup_commands", "worker_start_ray_commands"),
    }
    for name, (setup, start) in started.items():
        assert the_one(f"{name}.service", setup)
        assert the_one(f"systemctl restart {name}", start) == commands(start)[-1]
        unit = _unit(DEPLOY / f"{name}.service")
        assert unit["Service"]["Restart"] in ("always", "on-failure")
        assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    serve = _unit(DEPLOY / "saeq-serve.service")["Service"]
    assert serve["Restart"] == "always"
    assert int(serve["TimeoutStopSec"]) > 50  # so long serve takes to give its trials back


def test_systemd_accepts_the_services(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    for unit in DEPLOY.glob("*.service"):
        program = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
        copy = tmp_path / unit.name
        copy.write_text(program.replace("User=ubuntu", "User=root"))
        answer = subprocess.run(
            ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60
        )
        assert unit.name not in answer.stderr, answer.stderr


@pytest.mark.parametrize("policy", ["worker", "head"])
def test_a_role_reaches_one_prefix_of_one_bucket(policy: str) -> None:
    for each in _statements(policy):
        actions, resources = _listed(each["Action"]), _listed(each["Resource"])
        assert each["Effect"] == "Allow"
        assert not any("*" in action for action in actions)
        if any(action.startswith("s3:") for action in actions):
            inside = {"arn:aws:s3:::BUCKET/PREFIX/*", "arn:aws:s3:::BUCKET"}
            assert set(resources) <= inside
            if "arn:aws:s3:::BUCKET" in resources:
                assert set(actions) == {"s3:ListBucket", "s3:ListBucketMultipartUploads"}
        elif resources == ["*"]:
            assert all(action.startswith("ec2:Describe") for action in actions)


def test_a_worker_may_do_nothing_with_machines() -> None:
    actions = {action for each in _statements("worker") for action in _listed(each["Action"])}
    assert {a for a in actions if not a.startswith("s3:")} == {"ec2:DescribeSpotPriceHistory"}


def test_the_head_starts_spot_machines_of_its_cluster_only_and_ends_no_others() -> None:
    statements = {each["Sid"]: each for each in _statements("head")}
    start = statements["StartSpotMachinesOfThisCluster"]["Condition"]["StringEquals"]
    assert start == {"aws:RequestTag/ray-cluster-name": "CLUSTER", "ec2:InstanceMarketType": "spot"}
    for each in statements.values():
        if "ec2:TerminateInstances" in _listed(each["Action"]):
            wanted = {"ec2:ResourceTag/ray-cluster-name": "CLUSTER"}
            assert each["Condition"]["StringEquals"] == wanted
        if "iam:PassRole" in _listed(each["Action"]):
            assert each["Resource"].endswith(":role/saeq-worker")


def test_the_store_s_rights_are_those_of_the_other_documents() -> None:
    from orchestrator.store import s3_errors

    allowed = {action for each in _statements("worker") for action in _listed(each["Action"])}
    named = set(re.findall(r"s3:[A-Z]\w+", Path(s3_errors.__file__).read_text()))
    assert named <= allowed


def test_versions_are_compared_with_the_head_s(tmp_path: Path) -> None:
    """`ray exec` is played: it runs the question here, and may answer with another version."""
    fake = tmp_path / "ray"
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tmp_path}:{python}:{os.environ['PATH']}"}
    for change, code in (("cat", 0), ("sed s/ray=/ray=9./", 1), ("grep -v versions", 2)):
        fake.write_text(f'#!/bin/bash\necho noise\nbash -c "$4" | {change}\n')
        fake.chmod(0o755)
        answer = subprocess.run(
            [str(DEPLOY / "check_versions.sh"), "cluster.yaml"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == code, answer.stderr
    assert "is it up?" in answer.stderr


def test_what_the_document_shows_of_the_file_is_in_the_file() -> None:
    """The lines to change are printed by prepare.py and shown in the document; all three agree."""
    document = (ROOT / "docs" / "running_on_spot.md").read_text()
    program = (DEPLOY / "prepare.py").read_text()
    for start in ("region: &region ", "zones: &zones ", "security_group: &security_group ["):
        assert start in cluster_text() and start in program and start in document
    assert "store: &store echo SAEQ_STORE=" in document


def test_the_file_is_plain_yaml() -> None:
    """No tags, no duplicate anchors: any reader of YAML gives the same."""
    assert yaml.safe_load(cluster_text())["cluster_name"] == "saeq"
    anchors = re.findall(r"&(\w+)", re.sub(r"#.*", "", cluster_text()).replace("&&", ""))
    assert len(anchors) == len(set(anchors))


def _unit(path: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


def _command(app: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words call, through groups, and what is left of them."""
    import click

    command, context = app, click.Context(app)
    while hasattr(command, "get_command") and words:
        command, words = command.get_command(context, words[0]), words[1:]
        context = click.Context(command, parent=context)
    return command, words


def _statements(policy: str) -> list[dict[str, Any]]:
    return list(json.loads((DEPLOY / f"{policy}-policy.json").read_text())["Statement"])


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
