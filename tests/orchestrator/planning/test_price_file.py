"""Price files in three forms, and every fault of one with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning.price_file import PricedMachine, read_price_file
from orchestrator.spec.faults import SpecFaults

EXPECTED = [
    PricedMachine(
        name="box", device="H100-80", devices=8, usd_per_hour=18.4, spot=True, zone="eu-1"
    ),
    PricedMachine(name="mine", device="A100-40", usd_per_hour=0.5),
]

YAML = """# mine
offers:
  - {name: box, device: H100-80, devices: 8, usd_per_hour: $18.4, spot: true, zone: eu-1}
  - name: mine
    device: a100-40
    usd_per_hour: 0.5
"""
LIST = YAML.replace("offers:\n", "").replace("  - ", "- ").replace("\n    ", "\n  ")
JSON = """[
 {"name": "box", "device": "H100-80", "devices": 8, "usd_per_hour": 18.4, "spot": true,
  "zone": "eu-1"},
 {"name": "mine", "device": "A100-40", "usd_per_hour": 0.5}
]
"""
CSV = """name, device, devices, usd_per_hour, spot, zone
box, H100-80, 8, $18.4, true, eu-1
mine, A100-40,, 0.5,,
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prices.yaml", YAML),
        ("prices.yml", LIST),
        ("prices.json", JSON),
        ("prices.json", f'{{"offers": {JSON}}}'),
        ("prices.csv", CSV),
    ],
)
def test_every_form_says_the_same(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert read_price_file(file) == EXPECTED


def faults_of(text: str, name: str, folder: Path) -> str:
    file = folder / name
    file.write_text(text)
    with pytest.raises(SpecFaults) as raised:
        read_price_file(file)
    return str(raised.value).replace(str(folder) + "/", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("offers: []", "prices.yaml:1: offers: must list at least one machine"),
        ("ofers:\n  - {}", "prices.yaml:1: ofers: unknown key"),
        (YAML.replace("H100-80", "H100"), "prices.yaml:3: offers[0].device: unknown device"),
        (YAML.replace("H100-80", "H100"), "got 'H100'; use one of these. Did you mean 'H100-80'?"),
        (YAML.replace("    usd_per_hour: 0.5\n", ""), "prices.yaml:4: offers[1].usd_per_hour: is"),
        (YAML.replace("usd_per_hour: 0.5", "usd_per_our: 1"), "Did you mean 'usd_per_hour'?"),
        (YAML.replace("devices: 8", "devices: 0"), "must be above 0"),
        (YAML.replace("$18.4", "free"), "must be an amount of US dollars; got 'free'"),
        (YAML + "  - {name: mine, device: T4-16, usd_per_hour: 1}", "prices.yaml:7: offers[2]"),
        ("- [a", "is not valid YAML"),
        ("", "is empty"),
    ],
)
def test_a_fault_of_yaml_has_its_line(text: str, words: str, tmp_path: Path) -> None:
    assert words in faults_of(text, "prices.yaml", tmp_path)


def test_a_list_alone_keeps_its_line_numbers(tmp_path: Path) -> None:
    assert "prices.yaml:4: offers[1].device" in faults_of(
        LIST.replace("a100-40", "b100"), "prices.yaml", tmp_path
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CSV.replace("usd_per_hour", "usd_per_hours"), "Did you mean 'usd_per_hour'?"),
        (CSV.replace("A100-40", "A100-4"), "prices.csv:3: offers[1].device: unknown device"),
        (CSV + "x, T4-16, 1, 1, , , ,more\n", "prices.csv:4: offers[2]: has more cells"),
        (CSV.splitlines()[0], "must hold a header and at least one machine"),
        (CSV.replace("0.5", ""), "prices.csv:3: offers[1].usd_per_hour: is missing"),
    ],
)
def test_a_fault_of_csv_has_its_line(text: str, words: str, tmp_path: Path) -> None:
    assert words in faults_of(text, "prices.csv", tmp_path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = YAML.replace("H100-80", "H100").replace("usd_per_hour: 0.5", "usd_per_our: 1")
    assert faults_of(text, "prices.yaml", tmp_path).endswith("3 faults in prices.yaml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecFaults, match="there is no such file"):
        read_price_file(tmp_path / "none.yaml")
