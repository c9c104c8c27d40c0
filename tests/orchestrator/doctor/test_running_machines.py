"""`saeq doctor` finds machines that bill with nothing to do, and says how to end them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.doctor.base import Finding
from orchestrator.doctor.running_machines import RunningMachines
from orchestrator.nodes.records import NodeSide, write_side
from orchestrator.nodes.stages import Mark
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.cluster.ec2 import REGION, Ec2, fake_ec2

SWEEP = """
name: waits
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: 4, lr: 1.0e-3}
search: {sampler: grid}
"""
LONG_AGO = time.time() - 3 * 3600


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Store.open(str(tmp_path / "store"))


def there(store: Store, name: str, kind: str, **labels: str) -> None:
    """A node that was heard of just now."""
    named = {key.replace("_", "-"): value for key, value in labels.items()}
    side = NodeSide(id=name, kind=kind, host=f"host-of-{name}", labels=named)
    write_side(store, "self", side)


def looked(store: Store) -> list[Finding]:
    return list(RunningMachines().look(store))


def test_nothing_runs_and_nothing_is_said_against_it(store: Store) -> None:
    [finding] = looked(store)
    assert (finding.level, finding.way_out) == ("ok", "")
    assert finding.what == "none that the store knows of"


def test_machines_with_work_are_no_fault(store: Store) -> None:
    Queue(store).submit(parse_sweep(SWEEP), SWEEP)
    there(store, "box", "ssh", saeq_usd_per_hour="2.5")
    [finding] = looked(store)
    assert finding == Finding(
        "ok", "1 machine is running (host host-of-box): $2.50 an hour, for 1 sweep"
    )


def test_each_way_of_coming_has_its_way_of_ending(store: Store) -> None:
    there(store, "box", "ssh", saeq_usd_per_hour="2.5")
    there(store, "job-1", "slurm")
    there(store, "job-2", "slurm")
    there(store, "mine", "serve")
    there(store, "node", "cluster", usd_per_hour="4", instance_type="g5.2xlarge", market="spot")
    ends = {finding.way_out: finding for finding in looked(store)}
    down = ends["ray down cluster.yaml"]
    assert down.level == "warning"
    said = "1 machine is running (g5.2xlarge spot): $4.00 an hour, and the queue is empty"
    assert down.what == said
    [box] = [finding for way_out, finding in ends.items() if "saeq node down box" in way_out]
    assert box.level == "warning" and "$2.50 an hour" in box.what
    jobs = ends["saeq slurm down"]
    assert jobs.level == "note" and jobs.what.startswith("2 machines are running")
    assert "at a price that nobody named" in jobs.what
    assert any("host-of-mine" in way_out for way_out in ends)


def test_a_rented_machine_that_fell_silent_is_still_named(store: Store) -> None:
    marks = (Mark("script", LONG_AGO, "h"), Mark("environment", LONG_AGO, "h"))
    side = NodeSide(id="box", kind="ssh", host="h", marks=marks)
    write_side(store, "starter", side)
    [finding] = looked(store)
    assert finding.level == "warning" and "saeq node down box" in finding.way_out
    over = side.model_copy(update={"marks": (*marks, Mark("ended", LONG_AGO, "h"))})
    write_side(store, "starter", over)
    assert looked(store)[0].level == "ok"


def test_without_credentials_it_says_that_ec2_was_not_asked(store: Store, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("provider: {type: aws, region: eu-west-1}\n")
    [finding] = looked(store)
    assert finding.level == "ok"
    assert finding.what.endswith("(EC2 was not asked: no AWS credentials here)")


@pytest.mark.parametrize("text", ["", "provider: local", "provider: {type: gcp}", "a: [b"])
def test_a_cluster_file_that_names_no_region_is_passed_over(
    store: Store, tmp_path: Path, text: str
) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    assert looked(store)[0].what == "none that the store knows of"


@pytest.fixture(scope="module")
def account() -> Iterator[Ec2]:
    with fake_ec2() as ec2:
        yield ec2


@pytest.fixture
def ec2(account: Ec2, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ec2:
    """A head and two spot workers that nothing in the store speaks of."""
    del store  # it clears the environment first
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    (tmp_path / "cluster.yaml").write_text(f"provider: {{type: aws, region: {REGION}}}\n")
    started = account.client().describe_instances()["Reservations"]
    ids = [one["InstanceId"] for each in started for one in each["Instances"]]
    if ids:
        account.client().terminate_instances(InstanceIds=ids)
    _start(account, "m5.xlarge", {"saeq-usd-per-hour": "0.192"})
    for _ in range(2):
        _start(account, "g5.2xlarge", {}, spot=True)
    return account


def _start(ec2: Ec2, kind: str, tags: dict[str, str], spot: bool = False) -> str:
    tags = {"ray-cluster-name": "saeq", **tags}
    market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
    answer = ec2.client().run_instances(
        ImageId="ami-12345678",
        InstanceType=kind,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
        **market,
    )
    return str(answer["Instances"][0]["InstanceId"])


@pytest.mark.slow
def test_machines_that_ec2_knows_of_are_found_whatever_the_store_says(
    ec2: Ec2, store: Store
) -> None:
    ec2.client().run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)  # not Ray's
    [finding] = looked(store)
    assert finding.level == "warning"
    assert finding.what.startswith("3 machines of Ray cluster saeq are running (")
    assert "m5.xlarge on-demand" in finding.what and "2 g5.2xlarge spot" in finding.what
    assert "$0.19 an hour" in finding.what  # the head's; moto's spot market is almost free
    assert finding.what.endswith("and the queue is empty")
    assert finding.way_out == "ray down cluster.yaml"


@pytest.mark.slow
def test_a_machine_that_both_know_of_counts_once(ec2: Ec2, store: Store) -> None:
    instance = _start(ec2, "p4d.24xlarge", {}, spot=True)
    there(store, "ray-1234", "cluster", instance=instance, provider="aws", zone=f"{REGION}a")
    [finding] = looked(store)
    assert finding.what.startswith("4 machines of Ray cluster saeq are running (")


@pytest.mark.slow
def test_ended_machines_are_not_named(ec2: Ec2, store: Store) -> None:
    ids = [
        one["InstanceId"]
        for each in ec2.client().describe_instances()["Reservations"]
        for one in each["Instances"]
    ]
    ec2.client().terminate_instances(InstanceIds=ids)
    assert [finding.level for finding in looked(store)] == ["ok"]


@pytest.mark.slow
def test_another_cluster_is_ended_by_its_name(ec2: Ec2, store: Store) -> None:
    _start(ec2, "g5.2xlarge", {"ray-cluster-name": "night"}, spot=True)
    ways_out = {finding.way_out for finding in looked(store)}
    assert "ray down cluster.yaml --cluster-name night" in ways_out
    assert len(ways_out) == 2
