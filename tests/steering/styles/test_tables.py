"""Datasets and large tables: streamed, counted beforehand, and refused with numbers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from steering.styles import row_count, table_files
from steering.styles.errors import BadStyleData
from steering.styles.row_count import planned_bytes, size_of
from steering.styles.rows import RowsSpec, read_all_rows, read_rows

ROWS: list[dict[str, Any]] = [
    {"text": f"text {n}", "group": "ab"[n % 2], "item": f"q{n // 4}", "style": [n, 0.5, 1.0]}
    for n in range(40)
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(table_files, "hub_commit", lambda *_: None)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))


def dataset_folder(folder: Path, kind: str) -> Path:
    folder.mkdir()
    if kind == "parquet":
        for part in range(2):
            pq.write_table(
                pa.Table.from_pylist(ROWS[20 * part : 20 * part + 20]),
                folder / f"train-0000{part}-of-00002.parquet",
            )
        pq.write_table(pa.Table.from_pylist(ROWS[:10]), folder / "test-00000-of-00001.parquet")
    else:
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_dataset_s_rows_are_those_of_its_files(kind: str, tmp_path: Path) -> None:
    dataset_folder(tmp_path / "data", kind)
    spec = RowsSpec(dataset="data", text="text", vector="style", item="item")
    rows = read_rows(spec, tmp_path)
    assert rows.texts is not None
    assert rows.vectors is not None
    assert list(rows.texts) == [row["text"] for row in ROWS]
    assert list(rows.items) == [row["item"] for row in ROWS]
    assert rows.vectors.tolist() == [row["style"] for row in ROWS]
    if kind == "parquet":
        test = RowsSpec(dataset="data", split="test", text="text", min_per_group=5)
        assert len(read_rows(test, tmp_path)) == 10


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["plain", "ornate"])})
    data = {"text": [f"text {n}" for n in range(20)], "label": [n % 2 for n in range(20)]}
    folder = tmp_path / "labelled"
    folder.mkdir()
    Dataset.from_dict(data, features=features).to_parquet(str(folder / "train.parquet"))
    spec = RowsSpec(dataset=str(folder), text="text", group="label")
    assert list(read_rows(spec).groups)[:3] == ["plain", "ornate", "plain"]


def test_what_a_dataset_lacks_is_said(tmp_path: Path) -> None:
    dataset_folder(tmp_path / "data", "parquet")
    with pytest.raises(BadStyleData, match="no column 'txt'.*Did you mean 'text'"):
        read_rows(RowsSpec(dataset="data", text="txt"), tmp_path)
    with pytest.raises(BadStyleData, match="split dev .*cannot be opened: .*name a split"):
        read_rows(RowsSpec(dataset="data", split="dev", text="text"), tmp_path)
    with pytest.raises(BadStyleData, match=r"no folder here, and the hub cannot be reached.*files"):
        read_rows(RowsSpec(dataset="someone/styles", text="text"), tmp_path)
    with pytest.raises(ValidationError, match="exactly one of files, dataset, builtin"):
        RowsSpec(dataset="a", files="b.csv", text="text")
    with pytest.raises(ValidationError, match="belong to a dataset"):
        RowsSpec(files="b.csv", revision="main", text="text")


def test_every_so_many_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "BATCH_ROWS", 7)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "again.parquet")
    spec = RowsSpec(files=("rows.parquet", "again.parquet"), vector="style", every=3)
    rows = read_rows(spec, tmp_path)
    assert rows.vectors is not None
    assert rows.vectors[:, 0].astype(int).tolist() == ([*range(40), *range(40)])[::3]
    assert list(rows.items[:2]) == ["0", "1"]
    assert size_of(spec, tmp_path) == row_count.TableSize(26, True, 3, 0.0)
    np.save(tmp_path / "v.npy", np.arange(80.0).reshape(40, 2))
    array = RowsSpec(files="v.npy", labels="rows.parquet", text="text", every=4, min_per_group=3)
    taken = read_all_rows(array, tmp_path)
    assert taken.vectors is not None
    assert taken.vectors[:, 0].tolist() == list(range(0, 80, 8))
    assert len(taken) == 10


def test_a_table_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    monkeypatch.setattr(row_count, "free_bytes", lambda: 800)
    spec = RowsSpec(files="rows.parquet", vector="style")
    with pytest.raises(
        BadStyleData, match=r"40 rows of 3 numbers need .* are free here: .*every: 3 "
    ):
        read_rows(spec, tmp_path)
    assert len(read_all_rows(spec.model_copy(update={"every": 5}), tmp_path)) == 8
    dataset_folder(tmp_path / "data", "parquet")
    with pytest.raises(BadStyleData, match=r"after 40 rows .* GiB were free: .*every: 2"):
        read_rows(RowsSpec(dataset="data", vector="style"), tmp_path)


def test_a_large_table_says_beforehand_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    monkeypatch.setattr(row_count, "SAID_FROM_BYTES", 1)
    with caplog.at_level(logging.WARNING):
        read_rows(RowsSpec(files="rows.parquet", vector="style"), tmp_path)
    assert "40 rows of 3 numbers: 0.0 GiB of memory" in caplog.text


def test_a_plan_knows_ten_million_rows_from_headers_alone(tmp_path: Path) -> None:
    np.lib.format.open_memmap(
        tmp_path / "v.npy", mode="w+", dtype=np.float16, shape=(10_000_000, 768)
    )  # a hole in the disk: nothing is written
    spec = RowsSpec(files=str(tmp_path / "v.npy"), labels="labels.parquet")
    assert planned_bytes(spec, 0) == pytest.approx(2 * 4 * 768 * 10_000_000, rel=0.02)
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS * 50))
    size = size_of(RowsSpec(files=str(jsonl), text="text", vector="style"))
    assert size is not None
    assert size.num_rows == pytest.approx(2000, rel=0.05)
    assert (size.width, size.is_exact) == (3, False)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([["a"], ["b"]], "holds lists of string, not of numbers"),
        ([[1.0, None], [1.0, 2.0]], "NaN or infinite numbers in rows 1"),
        ([[], [1.0]], "row 1: the vector in column 'style' has 0 numbers, all must"),
        ([1.0, 2.0], "not lists of numbers"),
    ],
)
def test_columns_that_are_no_vectors_are_refused(
    vectors: list[Any], message: str, tmp_path: Path
) -> None:
    rows = [{"group": "a", "style": vector} for vector in vectors]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(BadStyleData, match=message):
        read_rows(RowsSpec(files="rows.parquet", vector="style"), tmp_path)


READ = """
import sys
import pyarrow.dataset, pyarrow.compute
from steering.styles.rows import RowsSpec, read_rows
from steering.styles.row_count import planned_bytes, size_of
spec = RowsSpec(files=sys.argv[1], vector="style", item="item")
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
rows = read_rows(spec)
print(len(rows), rows.vectors.nbytes, peak() - before, size_of(spec).bytes_with())
"""


@pytest.mark.slow
def test_reading_keeps_one_copy_and_stays_below_what_was_said(tmp_path: Path) -> None:
    """300,000 rows of 64 numbers, 77 MB: a file larger than its batches by far."""
    rng, rows = np.random.default_rng(0), 50_000
    schema = pa.schema(
        [("group", pa.string()), ("item", pa.string()), ("style", pa.list_(pa.float32(), 64))]
    )
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema) as writer:
        for part in range(6):
            flat = pa.array(rng.normal(size=rows * 64).astype(np.float32))
            columns = [
                pa.array([f"author {n % 9}" for n in range(rows)]),
                pa.array([f"question {(part * rows + n) // 30}" for n in range(rows)]),
                pa.FixedSizeListArray.from_arrays(flat, 64),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "rows.parquet")],
        capture_output=True,
        text=True,
        check=True,
    )
    num_rows, vectors, grown, said = map(int, answer.stdout.split())
    assert num_rows == 300_000
    assert vectors == 300_000 * 64 * 4
    assert vectors < grown < said + 160 * 2**20
