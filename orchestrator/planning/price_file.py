"""A file of prices that somebody wrote down: YAML, JSON or CSV, checked like a sweep file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.units import Usd
from orchestrator.planning.devices import GPUS
from orchestrator.spec.faults import Fault, SpecFaults, closest, listed, unknown_key
from orchestrator.spec.pydantic_faults import model_faults
from orchestrator.spec.sweep_file import read_text
from orchestrator.spec.yaml_positions import YamlText, parse_yaml

TOP_KEY = "offers"
EXAMPLE = "{name: h100-box, device: H100-80, devices: 8, usd_per_hour: 18.4, provider: me}"


class PricedMachine(BaseModel):
    """One kind of machine and what it costs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """What you call it, or its provider does."""
    device: str
    """Its GPUs, by a name that `saeq plan --device` knows."""
    devices: int = Field(default=1, gt=0)
    """How many GPUs it has."""
    usd_per_hour: Usd
    """Of the machine as a whole."""
    spot: bool = False
    """Whether it may be taken away."""
    provider: str = ""
    """Who rents it out."""
    zone: str = ""
    """Where it is, as its provider says it."""


def read_price_file(path: Path) -> list[PricedMachine]:
    """The machines of a file: `offers:` with a list below, that list alone, or CSV with a header.

    Raises:
        SpecFaults: with everything that is wrong, and its lines.
    """
    text = read_text(path)
    rows, document = _rows_of_csv(text, path) if path.suffix == ".csv" else _rows(text, path)
    faults = list(document.faults)
    machines: list[PricedMachine] = []
    for index, row in enumerate(rows):
        try:
            machines.append(PricedMachine.model_validate(row))
        except ValidationError as error:
            found = model_faults(error, PricedMachine, row)
            faults += [fault.under((TOP_KEY, index)) for fault in found]
        faults += _unknown_device(index, row)
    faults += _doubles(rows)
    if faults:
        raise SpecFaults(document.all_placed(faults), str(path))
    return [each.model_copy(update={"device": _known(each.device)}) for each in machines]


def _rows(text: str, path: Path) -> tuple[Sequence[Any], YamlText]:
    """JSON is YAML, too. A list alone is read as if its key stood before it."""
    # In front of its first line, so that all lines keep their numbers.
    is_list = text.lstrip().startswith("[")
    lines = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    if is_list:
        document = parse_yaml(f"{TOP_KEY}: {text.lstrip()}", str(path))
    elif lines and lines[0].startswith("- "):
        document = _one_line_up(parse_yaml(f"{TOP_KEY}:\n{text}", str(path)))
    else:
        document = parse_yaml(text, str(path))
    data = document.data
    faults = [unknown_key((key,), [TOP_KEY]) for key in data if key != TOP_KEY]
    rows = data.get(TOP_KEY)
    if not isinstance(rows, list) or not rows:
        way_out = f"write `{TOP_KEY}:` and below it `- {EXAMPLE}`"
        faults.append(Fault((TOP_KEY,), "must list at least one machine", way_out=way_out))
    if faults:
        raise SpecFaults(document.all_placed(faults), str(path))
    assert isinstance(rows, list)
    return rows, document


def _one_line_up(document: YamlText) -> YamlText:
    moved = {path: (max(line - 1, 1), col) for path, (line, col) in document.positions.items()}
    return YamlText(document.data, moved, document.faults)


def _rows_of_csv(text: str, path: Path) -> tuple[Sequence[Any], YamlText]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    known = list(PricedMachine.model_fields)
    faults = [unknown_key((name,), known, "column") for name in names if name not in known]
    rows: list[dict[str, Any]] = []
    positions: dict[tuple[str | int, ...], tuple[int, int]] = {(): (1, 1)}
    for row in reader:
        positions[TOP_KEY, len(rows)] = (reader.line_num, 1)
        if row.pop(None, None):
            rule = f"has more cells than the header ({len(names)})"
            faults.append(Fault((TOP_KEY, len(rows)), rule, way_out="quote cells with commas"))
        rows.append({key: value.strip() for key, value in row.items() if value and value.strip()})
    document = YamlText({TOP_KEY: rows}, positions)
    if not rows and not faults:
        way_out = "begin with `name,device,devices,usd_per_hour`"
        faults.append(Fault((), "must hold a header and at least one machine", way_out=way_out))
    if faults:
        raise SpecFaults(document.all_placed(faults), str(path))
    return rows, document


def _unknown_device(index: int, row: Any) -> list[Fault]:
    device = row.get("device") if isinstance(row, Mapping) else None
    if not isinstance(device, str) or _known(device) in GPUS:
        return []
    path = (TOP_KEY, index, "device")
    rule = f"unknown device; known: {listed(GPUS)}"
    return [Fault(path, rule, device, "use one of these", closest(device, GPUS))]


def _known(device: str) -> str:
    """The name as the table has it, however its letters are."""
    return next((name for name in GPUS if name.upper() == device.strip().upper()), device)


def _doubles(rows: Sequence[Any]) -> list[Fault]:
    seen: dict[tuple[Any, ...], int] = {}
    faults = []
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
            continue
        key = tuple(str(row.get(name, "")) for name in ("name", "provider", "zone", "spot"))
        if key in seen:
            rule = f"stands twice, first as number {seen[key] + 1} of the list"
            way_out = "keep one, or tell them apart by zone or provider"
            faults.append(Fault((TOP_KEY, index), rule, row["name"], way_out))
        seen.setdefault(key, index)
    return faults
