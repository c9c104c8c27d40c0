"""Rows of `saeq ls` that are kept on this machine are never older than the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.log.events import DriverStarted, EventBase, Finished, Leased, Suggested
from orchestrator.log.sweep_log import LogReader, LogWriter
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.view.sweep_rows import sweep_rows

TEXT = """
name: {name}
job: sae_train
model: {{builtin: smollm2-135m}}
data: {{builtin: python-docs}}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {{architecture: topk, d_sae: 64, k: 4, lr: {{choice: [1.0e-3, {lr}]}}}}
search: {{sampler: grid}}
"""
NOW = 4e9


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    store = Store.open(str(tmp_path / "store"))
    for name in ("over", "begun", "new"):
        text = TEXT.format(name=name, lr="2.0e-3")
        Queue(store).submit(parse_sweep(text), text)
    append(store, "over", *(event for number in range(2) for event in trial(number)))
    append(store, "begun", DriverStarted(host="h", pid=1), *trial(0))
    return store


def trial(number: int) -> tuple[EventBase, ...]:
    about = {"trial": f"t{number:04d}", "epoch": 1}
    return (
        Suggested(trial=about["trial"], number=number, config={"k": 4}, total_tokens=90_000),
        Leased.model_validate(about),
        Finished.model_validate(
            {**about, "artefact": "a", "metrics": {"fvu": 0.5 + number}, "tokens": 90_000}
        ),
    )


def append(store: Store, sweep: str, *events: EventBase) -> None:
    LogWriter(store, sweep).append(*events)


def logs_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of sweeps whose logs are read from here on."""
    read: list[str] = []
    poll = LogReader.poll

    def noting(self: LogReader) -> object:
        read.append(self._sweep)
        return poll(self)

    monkeypatch.setattr(LogReader, "poll", noting)
    return read


def test_only_what_moves_is_computed_again_and_comes_out_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep_rows(store, NOW)
    assert [(row.sweep, row.state, row.num_ended) for row in first] == [
        ("over", "finished", 2),
        ("begun", "running", 1),
        ("new", "queued", 0),
    ]
    read = logs_read(monkeypatch)
    assert sweep_rows(store, NOW) == first
    assert read == ["begun"]
    later = sweep_rows(store, NOW + 60)
    assert later[0].age_s is not None and first[0].age_s is not None
    assert later[0].age_s - first[0].age_s == pytest.approx(60)


def test_a_sweep_that_is_taken_up_again_is_computed_again(store: Store) -> None:
    sweep_rows(store, NOW)
    append(store, "over", *trial(2)[:2])
    (row,) = [row for row in sweep_rows(store, NOW) if row.sweep == "over"]
    assert (row.num_trials, row.num_ended) == (3, 2)


def test_a_record_that_changed_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_rows(store, NOW)
    key = store.layout.queued("over")
    store.write_json(key, {**store.read_json(key), "priority": 3})
    read = logs_read(monkeypatch)
    sweep_rows(store, NOW)
    assert "over" in read


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1, "sweeps": {"over": 3}}'])
def test_a_damaged_cache_is_as_good_as_none(store: Store, tmp_path: Path, damage: str) -> None:
    first = sweep_rows(store, NOW)
    (kept,) = (tmp_path / "cache" / "listings").iterdir()
    kept.write_text(damage)
    assert sweep_rows(store, NOW) == first


def test_a_machine_that_can_keep_nothing_lists_all_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "file"))
    assert len(sweep_rows(store, NOW)) == 3
