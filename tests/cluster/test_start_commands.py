"""What cluster.yaml has nodes run makes a real Ray cluster of two hosts, closed to strangers.

Everything but the installing of packages is run as it stands there, as Ray's launcher would.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import Started
from orchestrator.log.sweep_log import LogReader, SweepLog
from orchestrator.store import Store
from tests.cluster.cluster_file import ROOT, filled_in, head, prepared, workers
from tests.cluster.hosts import HOME, SHARED, Host, two_hosts
from tests.orchestrator.running import SWEEP
from tests.sae.tiny_model import build_tiny_model

pytestmark = pytest.mark.cluster

ZONE = "us-east-1c"
INSTALLS = ("astral.sh/uv", "uv pip install")
"""Commands that need the internet; the hosts have this environment's packages instead."""
ASK = "import ray, json; ray.init(address={!r}, log_to_driver=False); print(json.dumps({}))"


@dataclass(frozen=True)
class Cluster:
    """Both hosts after `ray up` and one launch of a worker."""

    head: Host
    worker: Host
    shared: Path
    """What is /home/shared on both, seen from here."""

    def nodes(self) -> list[dict[str, Any]]:
        """What Ray says of its nodes, asked on the head."""
        answer = self.head.must_run(python(ASK.format("auto", "ray.nodes()")))
        return list(json.loads(answer.splitlines()[-1]))

    def node_of(self, host: Host) -> dict[str, Any]:
        [node] = [one for one in self.nodes() if one["NodeManagerAddress"] == host.address]
        return node


def python(program: str) -> str:
    return f"~/saeq-env/bin/python -c {json.dumps(program)}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("hosts")
    with two_hosts(folder) as (first, second):
        for host, instance in ((first, "i-0head"), (second, "i-0worker")):
            _furnish(host, instance)
        _start_head(first)
        _start_worker(second, "g5", first.address)
        running = Cluster(first, second, folder / "shared")
        _until(lambda: len(running.nodes()) == 2, lambda: "the worker did not join")
        yield running


def _furnish(host: Host, instance: str) -> None:
    """What EC2 and Ray's rsync bring: metadata, mounted files, an environment."""
    placement = {"availability-zone": ZONE, "region": ZONE[:-1]}
    (host.metadata / "placement").mkdir()
    for name, value in placement.items():
        (host.metadata / "placement" / name).write_text(value)
    about = {"instance-id": instance, "instance-type": "g5.2xlarge", "instance-life-cycle": "spot"}
    for name, value in about.items():
        (host.metadata / name).write_text(value)
    (host.home / ".ray").mkdir()
    (host.home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    shutil.copytree(ROOT / "deploy" / "aws", host.home / "saeq-deploy")
    (host.home / "saeq-env").symlink_to(Path(sys.executable).parents[1])
    (host.home / "ray_bootstrap_config.yaml").write_text(json.dumps(prepared()))


def _start_head(host: Host) -> None:
    _set_up(host, "head_setup_commands")
    overrides = _overrides(head(prepared()))
    for command in filled_in()["head_start_ray_commands"]:
        host.must_run(f"export RAY_enable_autoscaler_v2=1; {command}", overrides)


def _start_worker(host: Host, node_type: str, head_address: str) -> None:
    _set_up(host, "worker_setup_commands")
    overrides = _overrides(workers(prepared())[node_type])
    for command in filled_in()["worker_start_ray_commands"]:
        named = f"export RAY_HEAD_IP={head_address}; export RAY_NODE_TYPE_NAME={node_type}; "
        host.must_run(named + command, overrides)


def _set_up(host: Host, own: str) -> None:
    """Twice, as autoscaler v2 does it."""
    config = filled_in()
    wanted = [each for each in config["setup_commands"] if not any(i in each for i in INSTALLS)]
    assert len(wanted) == len(config["setup_commands"]) - len(INSTALLS)
    for command in [*config["initialization_commands"], *wanted, *wanted, *config[own]]:
        host.must_run(command.replace("s3://my-bucket/saeq", f"{SHARED}/store"))


def _overrides(node_type: dict[str, Any]) -> dict[str, str]:
    """As Ray's NodeUpdater exports them; one core, so that a small machine is not overrun."""
    resources = dict(node_type["resources"])
    if resources["CPU"]:
        resources["CPU"] = 1
    return {
        "RAY_OVERRIDE_RESOURCES": json.dumps(resources, separators=(",", ":")),
        "RAY_OVERRIDE_LABELS": json.dumps(node_type["labels"], separators=(",", ":")),
    }


def _serve(host: Host, service: str) -> None:
    """Start a service as systemd would: its unit's command, in its unit's environment."""
    unit = ConfigParser(interpolation=None, strict=False)
    unit.read(ROOT / "deploy" / "aws" / f"{service}.service")
    own = unit["Service"]
    command = f"set -a; . {own['EnvironmentFile']}; exec {own['ExecStart']}"
    host.spawn("bash", "-c", f"{command} > {HOME}/{service}.log 2>&1")


def _until(holds: Callable[[], bool], otherwise: Callable[[], str], within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.5)


def test_the_environment_of_a_node_is_written_once_however_often(cluster: Cluster) -> None:
    written = cluster.worker.must_run("cat /etc/saeq.env").splitlines()
    assert written == [
        f"SAEQ_STORE={SHARED}/store",
        "RAY_AUTH_MODE=token",
        f"RAY_NODE_ZONE={ZONE}",
        f"AWS_DEFAULT_REGION={ZONE[:-1]}",
        f"SAEQ_NODE_LABELS=provider=aws,zone={ZONE},instance=i-0worker",
    ]
    assert (cluster.worker.home / ".bashrc").read_text().count("saeq.env") == 1


def test_nothing_can_be_placed_on_the_head(cluster: Cluster) -> None:
    resources = cluster.node_of(cluster.head)["Resources"]
    assert not resources.get("CPU") and not resources.get("GPU")
    assert resources["node:__internal_head__"] == 1.0


def test_a_worker_s_labels_lead_to_the_price_of_its_zone(cluster: Cluster) -> None:
    from orchestrator.providers.prices.aws_spot import MARKET_LABELS, TYPE_LABEL, ZONE_LABELS

    labels = cluster.node_of(cluster.worker)["Labels"]
    assert labels["saeq-provider"] == "aws"
    assert labels[TYPE_LABEL] == "g5.2xlarge"
    assert labels[MARKET_LABELS[0]] == "spot"
    assert next(labels[key] for key in ZONE_LABELS if key in labels) == ZONE
    assert labels["ray.io/node-group"] == "g5"
    assert cluster.node_of(cluster.worker)["Resources"]["GPU"] == 1.0


def test_the_dashboard_listens_to_the_head_alone(cluster: Cluster) -> None:
    pytest.importorskip("aiohttp_cors", reason="the dashboard needs ray[default], extra aws")
    asked = "curl -s -o /dev/null --max-time 10 -w '%{http_code}' http://"
    assert cluster.head.run(f"{asked}127.0.0.1:8265/api/version").stdout.strip() in ("200", "401")
    assert cluster.worker.run(f"{asked}{cluster.head.address}:8265/").stdout.strip() == "000"


def test_who_lacks_the_token_gets_nothing(cluster: Cluster) -> None:
    ask = python(ASK.format(f"{cluster.head.address}:6379", "len(ray.nodes())"))
    assert cluster.worker.must_run(ask).splitlines()[-1] == "2"
    stranger = "mkdir -p ~/stranger && HOME=~/stranger RAY_AUTH_MODE=disabled "
    refused = cluster.worker.run(stranger + ask, within_s=180.0)
    assert refused.returncode != 0
    assert "uthentic" in refused.stderr, refused.stderr[-2000:]


def test_the_services_are_started_last(cluster: Cluster) -> None:
    asked = (cluster.head.home / "systemctl.log").read_text().splitlines()
    assert asked[-2:] == ["enable saeq-serve", "restart saeq-serve"]
    asked = (cluster.worker.home / "systemctl.log").read_text().splitlines()
    assert asked[-1] == "restart saeq-node-watch"
    installed = cluster.head.must_run("cat /etc/systemd/system/saeq-serve.service")
    assert installed == (ROOT / "deploy" / "aws" / "saeq-serve.service").read_text()


def test_serve_as_its_service_runs_it_works_a_sweep_off_on_the_worker(cluster: Cluster) -> None:
    """Through the token, with nothing on the head to put a trial on."""
    build_tiny_model(cluster.shared / "model")
    file = cluster.shared / "sweep.yaml"
    text = SWEEP.format(
        name="tiny",
        model=f"{SHARED}/model",
        tokens="20k",
        lrs="1.0e-3",
        early_stop="{scheduler: none}",
        report="10k",
        checkpoint_seconds=5,
        members=4,
    )
    file.write_text(f"{text}device: cpu\n")
    cluster.head.must_run(f"saeq submit {SHARED}/sweep.yaml")
    _serve(cluster.head, "saeq-serve")
    store = Store.open(str(cluster.shared / "store"))
    log = SweepLog(store, "tiny")
    said = cluster.head.home / "saeq-serve.log"
    _until(
        lambda: log.refresh().counts["finished"] == 2,
        lambda: f"the sweep was not worked off:\n{said.read_text()[-4000:]}",
        within_s=400,
    )
    started = [event for event in LogReader(store, "tiny").poll() if isinstance(event, Started)]
    assert {event.node for event in started} == {cluster.worker.address}


def test_a_spot_notice_drains_the_node_by_the_service_s_own_command(cluster: Cluster) -> None:
    """The unit's command with the unit's environment, and AWS's notice at AWS's address."""
    _serve(cluster.worker, "saeq-node-watch")
    log = cluster.worker.home / "saeq-node-watch.log"
    _until(
        lambda: log.exists() and "watching" in log.read_text(), lambda: "the watcher did not start"
    )
    (cluster.worker.metadata / "spot").mkdir()
    ends_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 120))
    notice = cluster.worker.metadata / "spot" / "instance-action"
    notice.write_text(json.dumps({"action": "terminate", "time": ends_at}))
    _until(
        lambda: not cluster.node_of(cluster.worker)["Alive"],
        lambda: f"the node was not drained:\n{log.read_text()}",
    )
