"""Every source of text keeps its promises, and bad text gets one clear sentence."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from sae.pieces import PIECE_CHARS, cut_documents
from sae.sources import Source, builtin_names, open_source
from sae.stream_errors import BadData
from sae.stream_spec import DataSpec
from tests.sae.tiny_model import write_text

ROWS = [f"Document {n}: the mill stands by river {n}." for n in range(30)]


def texts(data: DataSpec) -> list[str]:
    return ["".join(document) for document in open_source(data).documents()]


def json_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data_for(name: str, folder: Path) -> DataSpec:
    if Source.by_name[name].is_builtin:
        return DataSpec(builtin=name)
    json_lines(folder / "train.jsonl", [{"text": row} for row in ROWS])
    if name == "dataset":
        return DataSpec(dataset=str(folder))
    return DataSpec(**{name: str(folder / "*.jsonl")})


@pytest.mark.parametrize("name", sorted(Source.by_name))
def test_every_source_gives_the_same_documents_twice(name: str, tmp_path: Path) -> None:
    data = data_for(name, tmp_path)
    open_source(data).check()
    first = texts(data)
    assert len(first) >= 30
    assert first == texts(data)


@pytest.mark.parametrize("name", sorted(Source.by_name))
def test_every_source_has_a_fingerprint_that_json_keeps(name: str, tmp_path: Path) -> None:
    fingerprint = dict(open_source(data_for(name, tmp_path)).fingerprint())
    assert fingerprint["source"] == name
    assert json.loads(json.dumps(fingerprint)) == fingerprint


def test_python_docs_is_known_as_a_builtin() -> None:
    assert "python-docs" in builtin_names()
    with pytest.raises(ValidationError, match="known: .*python-docs"):
        DataSpec(builtin="python-dogs")


def test_all_file_formats_hold_the_same_documents(tmp_path: Path) -> None:
    rows = [{"text": row} for row in ROWS]
    plain = json_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    pyarrow.parquet.write_table(pyarrow.table({"text": ROWS}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("".join(ROWS))
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress("".join(ROWS).encode()))
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert texts(DataSpec(files=str(tmp_path / name))) == ROWS
    for name in ("d.txt", "e.txt.gz"):
        assert texts(DataSpec(files=str(tmp_path / name))) == ["".join(ROWS)]


def test_a_change_in_a_file_changes_the_fingerprint(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", 5000)
    before = open_source(DataSpec(files=str(path))).fingerprint()
    path.write_text(path.read_text().replace("river", "liver", 1))
    assert open_source(DataSpec(files=str(path))).fingerprint() != before


def empty(folder: Path) -> DataSpec:
    (folder / "empty.txt").touch()
    return DataSpec(files=str(folder / "empty.txt"))


def nul_bytes(folder: Path) -> DataSpec:
    (folder / "nul.txt").write_bytes(b"text\0\1\2" * 500)
    return DataSpec(files=str(folder / "nul.txt"))


def garbage(folder: Path) -> DataSpec:
    (folder / "garbage.txt").write_bytes(bytes(range(128, 256)) * 400)
    return DataSpec(files=str(folder / "garbage.txt"))


def no_match(folder: Path) -> DataSpec:
    return DataSpec(files=str(folder / "*.txt"))


def no_file(folder: Path) -> DataSpec:
    return DataSpec(files=str(folder / "gone.txt"))


def a_folder(folder: Path) -> DataSpec:
    return DataSpec(files=str(folder))


def unknown_ending(folder: Path) -> DataSpec:
    (folder / "table.csv").write_text("a,b")
    return DataSpec(files=str(folder / "table.csv"))


def no_column(folder: Path) -> DataSpec:
    json_lines(folder / "a.jsonl", [{"txt": "hello", "id": 1}])
    return DataSpec(files=str(folder / "a.jsonl"))


def no_parquet_column(folder: Path) -> DataSpec:
    pyarrow.parquet.write_table(pyarrow.table({"content": ROWS}), folder / "a.parquet")
    return DataSpec(files=str(folder / "a.parquet"))


def number_column(folder: Path) -> DataSpec:
    json_lines(folder / "a.jsonl", [{"text": 3}])
    return DataSpec(files=str(folder / "a.jsonl"))


def malformed_line(folder: Path) -> DataSpec:
    (folder / "a.jsonl").write_text('{"text": "fine"}\n{"text": "cut off\n')
    return DataSpec(files=str(folder / "a.jsonl"))


def json_array(folder: Path) -> DataSpec:
    (folder / "a.json").write_text('[{"text": "a"}]')
    return DataSpec(files=str(folder / "a.json"))


def cut_gzip(folder: Path) -> DataSpec:
    whole = gzip.compress(json.dumps(ROWS).encode())
    (folder / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    return DataSpec(files=str(folder / "a.txt.gz"))


def not_parquet(folder: Path) -> DataSpec:
    (folder / "a.parquet").write_text("no table")
    return DataSpec(files=str(folder / "a.parquet"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, r"empty\.txt: nothing in it"),
        (nul_bytes, r"nul\.txt: is not text \(NUL bytes\)"),
        (garbage, r"garbage\.txt: is not UTF-8 text"),
        (no_match, r"no file matches .*\.txt.*known endings: .txt"),
        (no_file, r"there is no file .*gone\.txt"),
        (a_folder, r"is a folder; name the files in it"),
        (unknown_ending, r"table\.csv: cannot tell .*known endings"),
        (no_column, r"a\.jsonl:1: has no column 'text'.*'txt', 'id'; did you mean 'txt'"),
        (no_parquet_column, r"a\.parquet: has no column 'text'; its columns are 'content'"),
        (number_column, r"a\.jsonl:1: 'text' holds int, not text"),
        (malformed_line, r"a\.jsonl:2: is not valid JSON"),
        (json_array, r"a\.json: is one JSON array; write one object a line"),
        (cut_gzip, r"a\.txt\.gz: cannot be read"),
        (not_parquet, r"a\.parquet: is not a readable parquet file"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(
    make: Callable[[Path], DataSpec], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match=message) as refused:
        texts(make(tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("make", [no_match, nul_bytes, garbage, no_column, json_array, not_parquet])
def test_faults_at_the_start_show_before_anything_is_computed(
    make: Callable[[Path], DataSpec], tmp_path: Path
) -> None:
    with pytest.raises(BadData):
        open_source(make(tmp_path)).check()


def test_an_empty_file_among_others_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty(tmp_path)
    write_text(tmp_path / "full.txt", 500)
    assert len(texts(DataSpec(files=str(tmp_path / "*.txt")))) == 1
    assert "empty.txt is empty and is skipped" in caplog.text


def test_a_dataset_without_network_is_refused_with_the_alternatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **kwargs: Any) -> None:
        del args, kwargs
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    start_s = time.monotonic()
    with pytest.raises(BadData, match="cannot be reached.*`files:`.*python-docs") as refused:
        texts(DataSpec(dataset="Skylion007/openwebtext"))
    assert "\n" not in str(refused.value)
    assert time.monotonic() - start_s < 5


def test_a_dataset_that_is_no_name_is_refused() -> None:
    with pytest.raises(BadData, match="neither a path that exists nor a hub id"):
        texts(DataSpec(dataset="./no/such/folder"))


def test_a_local_dataset_lacking_the_column_lists_its_columns(tmp_path: Path) -> None:
    json_lines(tmp_path / "train.jsonl", [{"txt": row, "id": 1} for row in ROWS])
    with pytest.raises(BadData, match="no column 'text'.*'txt'.*did you mean 'txt'"):
        texts(DataSpec(dataset=str(tmp_path)))


def test_a_local_dataset_lacking_the_split_is_refused(tmp_path: Path) -> None:
    json_lines(tmp_path / "train.jsonl", [{"text": row} for row in ROWS])
    with pytest.raises(BadData, match="split 'test'"):
        texts(DataSpec(dataset=str(tmp_path), split="test"))


def test_pieces_join_to_the_text_and_break_at_whitespace(tmp_path: Path) -> None:
    text = write_text(tmp_path / "a.txt", 500_000).read_text()
    pieces = list(cut_documents([[text]]))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= PIECE_CHARS for piece in pieces)
    assert all(piece.text[0].isspace() for piece in pieces[1:])
    assert [piece.starts_document for piece in pieces] == [True] + [False] * (len(pieces) - 1)


def test_a_short_text_is_cut_fine_enough_to_hold_out_a_tenth() -> None:
    documents = ["word " * 800, "other " * 1000]
    pieces = list(cut_documents([[document] for document in documents]))
    assert len(pieces) >= 40
    assert sum(piece.starts_document for piece in pieces) == 2
    assert "".join(piece.text for piece in pieces) == "".join(documents)


@pytest.mark.parametrize("unit", ["word ", "x"])
def test_a_50_mb_line_is_cut_in_bounded_memory(unit: str, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(unit * (50_000_000 // len(unit)))
    tracemalloc.start()
    try:
        source = open_source(DataSpec(files=str(path)))
        num_chars = sum(len(piece.text) for piece in cut_documents(source.documents()))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_chars == 50_000_000
    assert peak_bytes < 50e6


def test_a_50_mb_json_line_stays_below_200_mb(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"text": "word " * 10_000_000}])
    tracemalloc.start()
    try:
        source = open_source(DataSpec(files=str(path)))
        num_chars = sum(len(piece.text) for piece in cut_documents(source.documents()))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_chars == 50_000_000
    assert peak_bytes < 200e6
