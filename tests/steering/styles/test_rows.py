"""Tables of every kind give the same rows; each fault is said with its place and the way out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from steering.styles.errors import BadStyleData
from steering.styles.rows import RowsSpec, read_rows, spread_rows

ROWS: list[dict[str, Any]] = [
    {
        "text": f"text {n}, with \u00fc",
        "group": "ab"[n % 2],
        "item": f"q{n // 2}",
        "style": [n, 0.5],
    }
    for n in range(20)
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> str:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(path, "w", newline="") as file:
            delimiter = "\t" if kind == "tsv" else ","
            writer = csv.DictWriter(file, ["text", "group", "item"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows({k: v for k, v in row.items() if k != "style"} for row in rows)
    return path.name


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    rows = read_rows(RowsSpec(files=write(tmp_path, kind), text="text", item="item"), tmp_path)
    assert list(rows.groups) == [row["group"] for row in ROWS]
    assert list(rows.items) == [row["item"] for row in ROWS]
    assert rows.texts is not None
    assert list(rows.texts) == [row["text"] for row in ROWS]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_vectors_come_from_a_column(kind: str, tmp_path: Path) -> None:
    rows = read_rows(RowsSpec(files=write(tmp_path, kind), vector="style"), tmp_path)
    assert rows.vectors is not None
    assert rows.vectors.dtype == np.float32
    assert rows.vectors[:, 0].tolist() == list(range(20))
    assert rows.take([3, 1]).vectors is not None
    assert rows.take([3, 1]).groups == ["b", "b"]


def test_vectors_come_from_an_array_beside_labels(tmp_path: Path) -> None:
    labels = write(tmp_path, "csv")
    np.save(tmp_path / "v.npy", np.eye(20))
    spec = RowsSpec(files="v.npy", labels=labels, text="text")
    rows = read_rows(spec, tmp_path)
    assert rows.vectors is not None
    assert (rows.vectors == np.eye(20)).all()
    np.save(tmp_path / "v.npy", np.eye(19))
    with pytest.raises(BadStyleData, match="19 vectors, rows.csv has 20 rows"):
        read_rows(spec, tmp_path)


def changed(row: int, **values: Any) -> list[dict[str, Any]]:
    return [{**one, **values} if n == row else one for n, one in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(4, text="  "), r"row 5: column 'text' is empty"),
        (changed(4, text=None), r"row 5: column 'text' is empty"),
        (changed(6, style=[1.0]), r"row 7: the vector in column 'style' has 1 numbers, those .* 2"),
        (changed(6, style=[1.0, float("nan")]), r"NaN or infinite numbers in rows 7; mend"),
        (changed(6, group=None), r"row 7: column 'group' is empty"),
        ([{**row, "group": "one"} for row in ROWS], "two groups are needed; there is one"),
        (
            changed(0, group="tiny"),
            r"1 of 3 groups have fewer than min_per_group=8 rows: tiny \(1\)",
        ),
    ],
)
def test_faults_of_rows_are_said_with_their_place(
    rows: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    spec = RowsSpec(files=write(tmp_path, "parquet", rows), text="text", vector="style")
    with pytest.raises(BadStyleData, match=message):
        read_rows(spec, tmp_path)


def test_small_groups_are_left_out_if_asked(tmp_path: Path) -> None:
    spec = RowsSpec(
        files=write(tmp_path, "parquet", changed(0, group="tiny")),
        text="text",
        drop_small_groups=True,
    )
    rows = read_rows(spec, tmp_path)
    assert rows.dropped == {"tiny": 1}
    assert len(rows) == 19


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"text,group\nm\xfcde,a\n" * 9)
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    (tmp_path / "rows.docx").write_bytes(b"x")
    write(tmp_path, "jsonl")
    cases = {
        "latin.csv": "not UTF-8",
        "half.parquet": "not readable",
        "rows.docx": "known endings",
        "nothing.csv": "no file matches",
    }
    for name, message in cases.items():
        with pytest.raises(BadStyleData, match=message):
            read_rows(RowsSpec(files=name, text="text"), tmp_path)
    with pytest.raises(BadStyleData, match="no column 'txt'.*Did you mean 'text'"):
        read_rows(RowsSpec(files="rows.jsonl", text="txt"), tmp_path)
    with pytest.raises(BadStyleData, match="'style' holds list|not text"):
        read_rows(RowsSpec(files="rows.jsonl", text="style"), tmp_path)
    with pytest.raises(ValidationError, match="give the column of the text"):
        RowsSpec(files="rows.jsonl")


def test_some_rows_of_each_group_are_spread_evenly_over_it() -> None:
    labels = ["a", "b"] * 10 + ["c"]
    assert spread_rows(labels, ["b", "c"], 5) == [1, 5, 9, 13, 17, 20]
    assert spread_rows(labels, ["a"], 3) == [0, 8, 16]
    assert spread_rows(labels, ["a"], 10) == list(range(0, 20, 2))
