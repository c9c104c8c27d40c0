"""Which price applies, and that it says where it comes from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from orchestrator.money.node_price import FROM_LABEL, FROM_SWEEP, NOT_KNOWN, node_price
from orchestrator.money.price_history import PriceHistory
from orchestrator.money.prices import TYPICAL_USD_PER_HOUR, typical_usd_per_hour
from orchestrator.money.ray_prices import price_of_cluster, price_of_this_node
from orchestrator.planning.devices import GPUS
from orchestrator.store import Store

A100 = "ray.io/accelerator-type"


def test_the_sweeps_own_price_outranks_all() -> None:
    price = node_price(2.5, {"saeq-usd-per-hour": "9", A100: "A100"})
    assert (price.usd_per_hour, price.source, price.is_estimate) == (2.5, FROM_SWEEP, False)


def test_a_nodes_price_is_divided_by_its_devices() -> None:
    price = node_price(0.0, {"saeq-usd-per-hour": "32", A100: "A100"}, num_devices=8)
    assert (price.usd_per_hour, price.source) == (4.0, FROM_LABEL)


def test_a_node_may_be_free() -> None:
    assert node_price(0.0, {"saeq-usd-per-hour": "0"}).noted() == {
        "usd_per_hour": 0.0,
        "price_source": FROM_LABEL,
    }


def test_a_typical_price_is_an_estimate_and_none_is_none() -> None:
    price = node_price(0.0, {A100: "A100-80G"})
    assert price.usd_per_hour == TYPICAL_USD_PER_HOUR["A100-80"] and price.is_estimate
    unknown = node_price(0.0, {})
    assert (unknown.usd_per_hour, unknown.source) == (None, NOT_KNOWN)
    assert unknown.noted() == {"usd_per_hour": 0.0, "price_source": ""}


@pytest.mark.parametrize("written", ["cheap", "-1", "nan", "inf", ""])
def test_a_label_that_is_no_price_is_warned_of(
    written: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert node_price(0.0, {"saeq-usd-per-hour": written}).usd_per_hour is None
    assert repr(written) in caplog.text and "--labels" in caplog.text


def test_an_unknown_provider_is_warned_of_with_those_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        price = node_price(0.0, {"saeq-provider": "awss", A100: "T4"}, store=store)
    assert price.is_estimate
    assert "known providers: aws" in caplog.text and "Did you mean 'aws'?" in caplog.text


@pytest.mark.parametrize(
    ("written", "device"),
    [
        *((name, name) for name in GPUS),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100-PCIE-40GB", "A100-40"),
        ("A100", "A100-40"),
        ("NVIDIA H100 80GB HBM3", "H100-80"),
        ("Tesla T4", "T4-16"),
        ("NVIDIA L40S", "L40S-48"),
        ("NVIDIA L4", "L4-24"),
        ("NVIDIA GeForce RTX 4090", "RTX4090-24"),
    ],
)
def test_a_device_is_known_by_any_of_its_names(written: str, device: str) -> None:
    assert typical_usd_per_hour(written) == TYPICAL_USD_PER_HOUR[device]


@pytest.mark.parametrize("written", ["", "this machine, 2 cores", "NVIDIA B200", "A10"])
def test_no_price_is_made_up(written: str) -> None:
    assert typical_usd_per_hour(written) is None


# Histories


def test_a_history_is_integrated_change_by_change() -> None:
    history = PriceHistory.of([(3600.0, 2.0), (0.0, 1.0), (7200.0, 5.0)])
    assert history.usd(1800.0, 9000.0) == pytest.approx(0.5 * 1 + 1 * 2 + 0.5 * 5)
    assert history.mean_usd_per_hour(1800.0, 9000.0) == pytest.approx(5.0 / 2)
    assert history.usd(-3600.0, 0.0) == pytest.approx(1.0)  # nothing is known before
    assert (history.usd(5.0, 5.0), history.mean_usd_per_hour(4000.0, 4000.0)) == (0.0, 2.0)


# Nodes of a cluster


def test_a_cluster_costs_what_its_usable_nodes_cost(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0},
         "Labels": {"saeq-usd-per-hour": "6"}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}, "Labels": {A100: "T4"}},
        {"Alive": True, "Resources": {"CPU": 4.0}, "Labels": {"saeq-usd-per-hour": "1"}},
        {"Alive": False, "Resources": {"GPU": 8.0}, "Labels": {"saeq-usd-per-hour": "99"}},
    ]  # fmt: skip
    assert price_of_cluster(0.0, nodes, "cuda", store) == pytest.approx(6 + 0.53)
    assert price_of_cluster(0.0, nodes, "cpu", store) == pytest.approx(6 + 1)
    assert price_of_cluster(2.0, nodes, "cuda", store) == pytest.approx(3 * 2)


@pytest.mark.slow
def test_a_real_nodes_label_is_the_price_of_what_runs_on_it(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    labels = {"saeq-usd-per-hour": "3.2"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "labels": labels})
    try:
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        price = price_of_this_node(0.0, "cpu", Store.open(str(tmp_path)))
        assert (price.usd_per_hour, price.source) == (3.2, FROM_LABEL)
    finally:
        ray.shutdown()
        cluster.shutdown()
