"""The queue: a damaged record is said with its way out and hides no other sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.queue import DamagedSweep, Queue, QueuedSweep
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store

TEXT = """
name: {name}
job: sae_train
model: {{builtin: smollm2-135m}}
data: {{builtin: python-docs}}
hooks: [model.layers.1]
tokens: 90k
space: {{architecture: topk, d_sae: 64, k: {{choice: [4, 8]}}}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "store"))
    for name in ("sound", "hurt"):
        text = TEXT.format(name=name)
        Queue(store).submit(parse_sweep(text), text)
    return store


def damage(store: Store, how: str) -> None:
    key = store.layout.queued("hurt")
    record = store.read_json(key)
    if how == "a key that is not known":
        record["spec"]["wings"] = 2
    texts = {
        "cut off": json.dumps(record)[:100],
        "a list": "[]",
        "without its spec": json.dumps({"sweep": "hurt"}),
        "a key that is not known": json.dumps(record),
        "no number": json.dumps({**record, "priority": "high"}),
    }
    store.backend.put(key, texts[how].encode())


HURTS = ["cut off", "a list", "without its spec", "a key that is not known", "no number"]


@pytest.mark.parametrize("how", HURTS)
def test_a_damaged_record_is_said_with_the_way_out(store: Store, how: str) -> None:
    damage(store, how)
    with pytest.raises(DamagedSweep, match=r"queue/hurt.json is damaged .*submit sweeps/hurt"):
        Queue(store).get("hurt")


def test_a_damaged_record_hides_no_other_sweep(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    damage(store, "cut off")
    assert [queued.id for queued in Queue(store).all()] == ["sound"]
    assert "hurt.json is damaged" in caplog.text


def test_the_way_out_of_a_damaged_record_works(store: Store) -> None:
    damage(store, "cut off")
    store.backend.delete(store.layout.queued("hurt"))
    text = store.backend.get(store.layout.spec_text("hurt")).decode()
    queued, _ = Queue(store).submit(parse_sweep(text), text)
    assert queued.id == "hurt"


def test_a_user_without_a_name_can_submit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise OSError("no username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    text = TEXT.format(name="third")
    assert Queue(store).submit(parse_sweep(text), text)[1]


def submitted(store: Store, extra: str) -> tuple[QueuedSweep, bool]:
    text = TEXT.format(name="sized") + extra
    return Queue(store).submit(parse_sweep(text), text)


def test_a_larger_cache_is_taken_over_and_makes_no_other_sweep(store: Store) -> None:
    submitted(store, "cache: {bytes: 5GB}")
    Queue(store).change(
        "sized",
        lambda spec: spec.model_copy(
            update={"setup": spec.setup.model_copy(update={"tokens": 180_000})}
        ),
    )
    queued, is_new = submitted(store, "cache: {bytes: 50GB, folder: /scratch}\noverlap: false")
    assert (queued.id, is_new) == ("sized", False)
    setup = queued.spec.setup.model_dump(mode="json")
    assert setup["cache"] == {"bytes": 50 * 10**9, "dtype": None, "folder": "/scratch"}
    assert (setup["overlap"], setup["tokens"]) == (False, 180_000)  # extended it stays


def test_another_precision_of_the_cache_makes_another_sweep(store: Store) -> None:
    submitted(store, "cache: {bytes: 5GB}")
    queued, is_new = submitted(store, "cache: {bytes: 5GB, dtype: float8}")
    assert (queued.id, is_new) == ("sized-2", True)
