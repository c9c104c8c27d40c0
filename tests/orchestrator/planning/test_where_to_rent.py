"""Which machine to rent: what fits, cheapest, fastest, the frontier between; prices with origin."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import moto
import pytest
from rich.console import Console

from jobs import JobKind
from jobs.kind import Footprint
from orchestrator.cli import main
from orchestrator.planning import market
from orchestrator.planning.calibration import Calibration
from orchestrator.planning.devices import GPUS, device_named
from orchestrator.planning.market import offers_of_now
from orchestrator.planning.offers import AWS_TYPES, MachineOffer, aws_offers, read_cluster_file
from orchestrator.planning.plan import TrialTooLarge, plan
from orchestrator.planning.where import MachineRow, WherePlan, where
from orchestrator.providers.prices import PriceUnavailable, aws_spot
from orchestrator.providers.prices.aws_spot import SpotPrice
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import SweepSpec, parse_sweep
from orchestrator.view.where_page import where_page

ROOT = Path(__file__).parents[3]
GIB = 2**30
SWEEP = """
name: wide
job: sae_train
model: {name: openai-community/gpt2, dtype: bfloat16}
data: {dataset: a/b}
hooks: [transformer.h.8]
tokens: 4M
batch_tokens: 4096
space: {architecture: topk, d_sae: 24576, k: {choice: [16, 32, 64]}, lr: {choice: %s}}
early_stop: {scheduler: none}
%s
"""


def sweep(num_rates: int = 4, more: str = "") -> SweepSpec:
    rates = [f"{number + 1}.0e-4" for number in range(num_rates)]
    return parse_sweep(SWEEP % (f"[{', '.join(rates)}]", more))


def offer(name: str, device: str, usd: float | None, num_devices: int = 1) -> MachineOffer:
    return MachineOffer(name, device, num_devices, usd, "a test")


def rows(made: WherePlan) -> dict[str, MachineRow]:
    return {row.name: row for row in made.machines}


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any) -> Any:
        raise PriceUnavailable("no AWS credentials here")

    monkeypatch.setattr(market, "spot_prices_now", silent)


# The estimate


def test_an_a100_beats_an_l4_at_a_wide_sae_in_fp32() -> None:
    """NVIDIA's sheets say 19.5 and 30.3 TFLOP/s; the L4's 72 W do not last for that."""
    devices = [device_named(name) for name in ("L4-24", "A100-40", "A100-80", "H100-80")]
    hours = [each.hours for each in plan(sweep(), devices).devices]
    times = [each.at_most for each in hours if each is not None]
    assert len(times) == 4
    assert times[0] > 1.2 * times[1] >= 1.2 * times[2] > 1.2 * times[3]


def test_a_step_takes_its_arithmetic_and_then_its_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    def hours(traffic_bytes: float) -> float:
        footprint = Footprint(
            GIB, GIB, 0.0, trial_flop_per_token=1e9, trial_traffic_bytes_per_token=traffic_bytes
        )
        monkeypatch.setattr(JobKind.by_name["sae_train"], "footprint", lambda *_: footprint)
        found = plan(sweep(), [device_named("A100-40")]).devices[0].hours
        assert found is not None
        return found.at_most

    tokens = 12 * (4_000_000 // 4096 * 4096)
    by_flop = tokens * 1e9 / (19.5e12 * 0.4) / 3600
    assert hours(0.0) == pytest.approx(by_flop)
    by_traffic = tokens * 1e9 / (1555e9 * 0.6) / 3600
    assert hours(1e9) == pytest.approx(by_flop + by_traffic)


def test_gpus_that_get_no_trial_make_nothing_faster() -> None:
    few = sweep(1)  # three trials
    made = rows(where(few, [offer("four", "A100-80", 4.0, 4), offer("eight", "A100-80", 8.0, 8)]))
    assert made["four"].hours == made["eight"].hours
    four, eight = made["four"].usd, made["eight"].usd
    assert four is not None
    assert eight is not None
    assert eight.at_most == pytest.approx(2 * four.at_most)


# Comparing


def test_cheapest_fastest_and_the_frontier_between() -> None:
    offers = [
        offer("slow-dear", "L4-24", 9.0),
        offer("cheap", "L4-24", 0.05),
        offer("middle", "A100-80", 1.0),
        offer("fast", "H100-80", 60.0, 4),
        offer("nobody-says", "H100-80", None, 8),
    ]
    made = where(sweep(), offers)
    assert (made.cheapest, made.fastest) == ("cheap", "nobody-says")
    on_frontier = {row.name for row in made.machines if row.on_frontier}
    assert on_frontier == {"cheap", "middle", "fast"}
    assert [row.name for row in made.machines][0] == "cheap"
    assert [row.name for row in made.machines][-1] == "nobody-says"


def test_numbers_of_a_row_belong_together() -> None:
    row = rows(where(sweep(), [offer("box", "H100-80", 16.0, 8)]))["box"]
    assert row.hours is not None
    assert row.usd is not None
    assert row.usd_per_sae is not None
    assert row.tokens_per_second is not None
    assert row.usd.at_most == pytest.approx(16.0 * row.hours.at_most)
    assert row.usd_per_sae == pytest.approx(row.usd.at_most / 12)
    tokens = 12 * (4_000_000 // 4096 * 4096)
    assert row.tokens_per_second * row.hours.at_most * 3600 == pytest.approx(tokens)


def test_a_machine_on_which_nothing_fits_says_so_with_numbers() -> None:
    wide = parse_sweep((SWEEP % ("[1.0e-4]", "")).replace("24576", "262144"))
    made = where(wide, [offer("small", "T4-16", 0.1), offer("large", "H200-141", 9.0)])
    small = rows(made)["small"]
    assert small.hours is None
    assert small.usd is None
    assert re.search(r"needs [\d.]+ GiB, 13.8 GiB usable", small.notes[0])
    assert made.cheapest == made.fastest == "large"
    assert "small: needs" in page(made)


def test_nothing_anywhere_is_refused_with_numbers() -> None:
    wide = parse_sweep((SWEEP % ("[1.0e-4]", "")).replace("24576", "2621440"))
    with pytest.raises(TrialTooLarge, match="fits none of"):
        where(wide, [offer("small", "T4-16", 0.1)])


def test_a_budget_that_does_not_suffice_is_told_for_each_machine() -> None:
    made = where(sweep(more="budget: {usd: 0.01}"), [offer("dear", "L4-24", 99.0)])
    assert "budget.usd 0.01 ends it early" in rows(made)["dear"].notes[0]


def test_measuring_here_scales_every_estimate_and_is_named() -> None:
    here = device_named("A100-80").model_copy(update={"here": True, "name": "A100 of a test"})
    plain = plan(sweep(), [here]).devices[0].hours
    assert plain is not None
    per_token = plain.at_most * 3600 / (12 * (4_000_000 // 4096 * 4096))
    slow = Calibration(
        device="cuda",
        members=12,
        stream_tokens=1,
        wall_seconds=1,
        load_seconds=1,
        shared_seconds_per_token=0.0,
        trial_seconds_per_token=3 * per_token,
        report_seconds=0.0,
        checkpoint_seconds=0.0,
    )
    offers = [offer("a", "L4-24", 1.0), offer("b", "H100-80", 4.0)]
    unscaled = rows(where(sweep(), offers))
    made = where(sweep(), offers, measured=(slow, here))
    for name, row in rows(made).items():
        before = unscaled[name].hours
        assert row.hours is not None
        assert before is not None
        assert row.hours.at_most == pytest.approx(3 * before.at_most)
    assert made.scaling is not None
    assert made.scaling.factor == pytest.approx(3.0)
    assert "times 3, as measured on A100 of a test" in " ".join(page(made).split())


# Where prices are from


def test_spot_comes_before_the_cluster_files_label_and_that_before_the_list() -> None:
    cluster, region = read_cluster_file(ROOT / "cluster.yaml")
    assert region == "us-east-1"
    labelled = cluster.model_copy(deep=True)
    named = {one.instance_type: one for one in labelled.available_node_types.values()}
    named["p4d.24xlarge"].labels["saeq-usd-per-hour"] = "9.5"
    spot = {"p5.48xlarge": SpotPrice(20.0, "us-east-1c", time.time())}
    offers = {each.name: each for each in aws_offers(spot, labelled)}
    p5, p4d, g5 = offers["p5.48xlarge"], offers["p4d.24xlarge"], offers["g5.12xlarge"]
    assert (p5.usd_per_hour, p5.spot, p5.zone, p5.is_estimate) == (20.0, True, "us-east-1c", False)
    assert (p4d.usd_per_hour, p4d.is_estimate) == (9.5, False)
    assert p4d.node_type
    assert "cluster file" in p4d.source
    assert (g5.usd_per_hour, g5.is_estimate) == (AWS_TYPES["g5.12xlarge"][1], True)
    assert g5.node_type == ""


def test_a_cluster_file_of_another_provider_brings_its_types(tmp_path: Path, no_aws: None) -> None:
    del no_aws
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "provider: {type: gcp, region: europe-west4}\n"
        "available_node_types:\n"
        "  head: {resources: {CPU: 4}, node_config: {}}\n"
        "  a100:\n"
        "    resources: {CPU: 12, GPU: 2}\n"
        "    labels: {ray.io/accelerator-type: A100-40G, saeq-usd-per-hour: '3.5'}\n"
        "    node_config: {machineType: a2-highgpu-2g}\n"
    )
    offers, _ = offers_of_now([], cluster=file)
    found = next(each for each in offers if each.node_type == "a100")
    assert (found.name, found.device, found.num_devices) == ("a2-highgpu-2g", "A100-40", 2)
    assert found.usd_per_hour == 3.5


def test_a_file_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("name: a\n")
    with pytest.raises(SpecFaults, match="name the file that `ray up` takes"):
        read_cluster_file(file)


def test_a_price_file_replaces_list_prices_and_tells_its_age(tmp_path: Path, no_aws: None) -> None:
    del no_aws
    file = tmp_path / "mine.csv"
    file.write_text("name,device,devices,usd_per_hour\np5.48xlarge,H100-80,8,30\nbox,T4-16,1,0.1\n")
    os.utime(file, (time.time() - 7200,) * 2)
    offers, notes = offers_of_now([], prices=file)
    assert [each.usd_per_hour for each in offers if each.name == "p5.48xlarge"] == [30.0]
    box = next(each for each in offers if each.name == "box")
    assert box.source == "mine.csv, changed 2h ago"
    assert "no AWS credentials here" in notes[0]


class Ec2:
    """describe_spot_price_history of one region, in two pages."""

    def __init__(self, region: str, usd: float) -> None:
        self.region, self.usd = region, usd

    def get_paginator(self, operation: str) -> Ec2:
        assert operation == "describe_spot_price_history"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        from datetime import UTC, datetime

        for zone, factor, at in (("a", 1.0, 100), ("b", 0.9, 100), ("b", 0.1, 50)):
            yield {
                "SpotPriceHistory": [
                    {
                        "InstanceType": name,
                        "AvailabilityZone": f"{self.region}{zone}",
                        "SpotPrice": f"{self.usd * factor:.4f}",
                        "Timestamp": datetime.fromtimestamp(at, UTC),
                    }
                    for name in request["InstanceTypes"]
                ]
            }


def test_the_cheapest_zone_of_all_regions_counts_at_its_newest_price(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    usd = {"us-east-1": 10.0, "us-west-2": 8.0}
    monkeypatch.setattr(aws_spot, "_client", lambda region: Ec2(region, usd[region]))
    found = aws_spot.spot_prices_now(["p5.48xlarge"], list(usd), time.time())
    assert found == {"p5.48xlarge": SpotPrice(7.2, "us-west-2b", 100.0)}


def test_prices_of_moto_are_found_region_by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-a-test")
    with moto.mock_aws():
        offers, notes = offers_of_now(["us-east-1", "us-west-2"])
    spot = [each for each in offers if each.spot]
    assert spot, notes
    assert all(each.usd_per_hour and each.zone.startswith("us-") for each in spot)
    assert {each.source for each in spot} == {"AWS spot, asked just now"}


def test_without_credentials_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PriceUnavailable, match="no AWS credentials"):
        aws_spot.spot_prices_now(["p5.48xlarge"], ["us-east-1"], time.time())


def test_the_table_of_types_is_whole() -> None:
    offers = {each.name: each for each in aws_offers({})}
    assert set(offers) == set(AWS_TYPES)
    assert all(each.device in GPUS and each.usd_per_hour for each in offers.values())
    # A price per GPU that is far from the typical one is a slip of the pen.
    assert all(0.4 < each.usd_per_hour / each.num_devices < 9 for each in offers.values())  # type: ignore[operator]


# The page and the command


def page(made: WherePlan, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(where_page(made, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_page_fits(width: int, no_aws: None) -> None:
    del no_aws
    offers, notes = offers_of_now([], cluster=ROOT / "cluster.yaml")
    shown = page(where(sweep(), offers, notes=notes), width)
    assert max(map(len, shown.splitlines())) <= width
    table = [line for line in shown.splitlines() if "xlarge" in line and "$" in line]
    assert len([line for line in table if line[0] in "* "]) >= len(AWS_TYPES) - 1
    if width >= 80:
        assert "tok/s" in shown
        assert "per SAE" in shown


def test_the_page_names_cheapest_fastest_and_sources(no_aws: None) -> None:
    del no_aws
    offers, notes = offers_of_now([])
    shown = " ".join(page(where(sweep(), offers, notes=notes)).split())
    assert re.search(r"cheapest: \S+ \(", shown)
    assert "price: ~ AWS on-demand list price, us-east-1" in shown
    assert "no AWS credentials here" in shown
    assert re.search(r"\* g\S+", shown)


def called(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str
) -> tuple[int, str, str]:
    file = folder / "sweep.yaml"
    file.write_text(SWEEP % ("[1.0e-4]", ""))
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(file), *arguments])
    out, err = capsys.readouterr()
    return int(str(ended.value.code or 0)), out, err


def test_the_command_writes_nothing_and_speaks_json(
    tmp_path: Path, no_aws: None, capsys: pytest.CaptureFixture[str]
) -> None:
    del no_aws
    code, out, _ = called(capsys, tmp_path, "--where", "--json")
    answer = json.loads(out)
    assert code == 0
    assert {row["name"] for row in answer["machines"]} == set(AWS_TYPES)
    assert answer["cheapest"] in AWS_TYPES
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prices", "x.yaml"], "go with --where"),
        (["--where", "--device", "T4-16"], "--where compares whole machines"),
        (["--where", "--prices", "none.yaml"], "there is no such file"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    arguments: Sequence[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    no_aws: None,
) -> None:
    del no_aws
    code, _, err = called(capsys, tmp_path, *arguments)
    assert code == 2
    assert words in err
