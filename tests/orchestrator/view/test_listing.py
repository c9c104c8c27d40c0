"""Listings of sweeps and artefacts, and the pages of one sweep and one trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.sweep_log import LogReader
from orchestrator.store import Store
from orchestrator.trials.artefacts import artefact_records
from orchestrator.view.listing import (
    ArtefactRow,
    UnknownSortKey,
    artefact_table,
    select_artefacts,
    sweep_row,
    sweep_table,
)
from orchestrator.view.output import OutputReader
from orchestrator.view.show import (
    UnknownTrial,
    find_trial,
    sweep_json,
    sweep_page,
    trial_json,
    trial_page,
)
from tests.orchestrator.invented_sweep import FACTS, START_AT, InventedSweep, sweep_in_all_states


def record(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": f"demo-t{number:04d}",
        "kind": "sae",
        "sweep": "demo",
        "trial": f"t{number:04d}",
        "config": {"k": 16 * (number + 1)},
        "setup": dict(FACTS.setup),
        "metrics": {"fvu": 0.4 - number / 10, "l0": 16.0 * (number + 1)},
        "lineage": {},
        "cost": {"seconds": 66.0, "usd": 0.01},
        "versions": {},
        "created_at": START_AT + number,
        **changed,
    }


def put_artefact(store: Store, folder: Path, value: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(value))
    (folder / "sae_weights.safetensors").write_bytes(b"0")
    store.put_files(folder, store.layout.artefact(value["kind"], value["id"]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "store"))
    for number in range(3):
        put_artefact(store, tmp_path / f"out{number}", record(number))
    other = record(7, id="other-t0007", kind="embedding", sweep="other", setup={"model": "gpt2"},
                   metrics={"loss": 1.5})  # fmt: skip
    put_artefact(store, tmp_path / "out7", other)
    return store


def rows_of(store: Store) -> list[ArtefactRow]:
    return [ArtefactRow.of(found, path) for found, path in artefact_records(store)]


def test_artefacts_json_is_the_contract(store: Store) -> None:
    first = next(row.to_json() for row in rows_of(store) if row.id == "demo-t0000")
    assert {name: first[name] for name in ("id", "kind", "sweep", "trial", "metrics")} == {
        "id": "demo-t0000",
        "kind": "sae",
        "sweep": "demo",
        "trial": "t0000",
        "metrics": {"fvu": 0.4, "l0": 16.0},
    }
    assert (Path(first["path"]) / "sae_weights.safetensors").is_file()
    assert (first["model"], first["hook"]) == ("smollm2-135m", "model.layers.10")


def test_half_an_artefact_is_not_listed(store: Store) -> None:
    key = store.layout.artefact("sae", "demo-t0000") + "manifest.json"
    store.backend.delete(key)
    assert "demo-t0000" not in [row.id for row in rows_of(store)]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"kind": "embedding"}, ["other-t0007"]),
        ({"sweep": "demo", "sort": "fvu"}, ["demo-t0002", "demo-t0001", "demo-t0000"]),
        ({"sweep": "demo", "sort": "-fvu"}, ["demo-t0000", "demo-t0001", "demo-t0002"]),
        ({"model": "SMOL", "sort": "-created_at"}, ["demo-t0002", "demo-t0001", "demo-t0000"]),
        ({"hook": "layers.3"}, []),
        ({"sort": "loss"}, ["other-t0007", "demo-t0000", "demo-t0001", "demo-t0002"]),
    ],
)
def test_artefacts_are_filtered_and_sorted(
    store: Store, wanted: dict[str, str], ids: list[str]
) -> None:
    assert [row.id for row in select_artefacts(rows_of(store), **wanted)] == ids


def test_an_unknown_sort_key_is_refused_with_the_nearest(store: Store) -> None:
    with pytest.raises(UnknownSortKey, match="--sort 'fvo' is no column.*Did you mean 'fvu'"):
        select_artefacts(rows_of(store), sort="fvo")


def test_a_bare_record_lists() -> None:
    row = ArtefactRow.of({"id": "x", "metrics": None, "setup": 3}, "/p")
    assert (row.model, row.hook, row.metrics) == ("", "", {})
    assert "x" in "\n".join(line.plain for line in artefact_table([row], 80))


def test_empty_listings_say_what_to_do() -> None:
    assert "saeq run FILE" in sweep_table([], 80)[0].plain
    assert "no artefacts" in artefact_table([], 80)[0].plain


@pytest.mark.parametrize("width", [60, 80, 200])
def test_ls_says_how_far_how_good_and_why(tmp_path: Path, width: int) -> None:
    watched = sweep_in_all_states(tmp_path).watched()
    row = sweep_row(watched.facts, watched.log.state, START_AT + 200)
    lines = sweep_table([row], width)
    assert all(line.cell_len <= width for line in lines)
    assert "9/16" in lines[1].plain
    assert row.best == 0.21
    assert row.why == "a slot is free: about to start"
    assert row.to_json()["counts"]["queued"] == 4
    assert json.dumps(row.to_json(), allow_nan=False)


def test_a_sweep_page_tells_its_spec_and_its_drivers(tmp_path: Path) -> None:
    watched = sweep_in_all_states(tmp_path).watched()
    for width in (60, 80, None):
        lines = sweep_page(watched.facts, watched.log.state, width)
        text = "\n".join(line.plain for line in lines)
        assert "builtin=smollm2-135m" in text
        assert "16 trials, grid over" in text
        assert "driver-" in text
    found = sweep_json(watched.facts, watched.log.state)
    assert found["drivers"][0]["host"] == "laptop"
    assert json.dumps(found, allow_nan=False)


def test_a_trial_page_tells_all_that_happened(tmp_path: Path) -> None:
    sweep = sweep_in_all_states(tmp_path)
    watched = sweep.watched()
    events = LogReader(sweep.store, "demo").poll()
    trial = watched.log.state.trials["t0004"]
    for width in (60, 120, None):
        lines = trial_page(watched.facts, trial, events, None, width)
        text = "\n".join(line.plain for line in lines)
        for said in ("demo/t0004  stopped", "k=16", "24k", "went on", "history", "rungs"):
            assert said in text
    found = trial_json(watched.facts, trial, None, ["x"])
    assert [rung["verdict"] for rung in found["rungs"]] == ["went on", "stopped"]
    assert json.dumps(found, allow_nan=False)


def test_a_failed_trial_shows_its_traceback(tmp_path: Path) -> None:
    watched = sweep_in_all_states(tmp_path).watched()
    trial = watched.log.state.trials["t0007"]
    text = "\n".join(line.plain for line in trial_page(watched.facts, trial, [], None, 80))
    assert "  File 'sae.py', line 3, in step" in text


def test_trials_are_found_by_id_and_by_number(tmp_path: Path) -> None:
    state = sweep_in_all_states(tmp_path).watched().log.state
    assert find_trial("demo", "t0004", state) is find_trial("demo", "4", state)
    with pytest.raises(UnknownTrial, match="has no trial 't004'.*Did you mean 't0004'"):
        find_trial("demo", "t004", state)


def test_output_is_read_as_it_grows(tmp_path: Path) -> None:
    sweep = InventedSweep.under(tmp_path)
    key = sweep.store.layout.output("demo") + "driver-1.log"
    reader = OutputReader(sweep.store, "demo")
    assert reader.read() == ""
    sweep.store.backend.append(key, b"one\n")
    assert reader.read() == "==> driver-1.log <==\none\n"
    sweep.store.backend.append(key, b"two\n")
    assert reader.read() == "two\n"
