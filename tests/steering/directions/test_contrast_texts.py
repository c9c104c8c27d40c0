"""Contrast texts: files are read and checked, and split by pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from steering.directions import ContrastSpec, read_contrast
from steering.directions.contrast_sets import builtin_pairs, set_names
from steering.errors import BadSteeringInput

ROWS = [(f"Good day, sir {n}.", f"yo {n}") for n in range(12)]


def _jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", set_names())
def test_builtin_sets_are_sixty_pairs_of_sentences_in_plain_text(name: str) -> None:
    pairs = builtin_pairs(name)
    texts = [text for pair in pairs for text in pair]
    assert len(pairs) >= 60
    assert len(set(texts)) == len(texts)
    assert all(text.isascii() and text == " ".join(text.split()) for text in texts)
    assert all(text[-1] in ".!?" for text in texts)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_pairs_are_read_from_tables(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{ending}"
    table = {"positive": [one for one, _ in ROWS], "negative": [other for _, other in ROWS]}
    if ending == "jsonl":
        _jsonl(path, [{"positive": one, "negative": other} for one, other in ROWS])
    elif ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.table(table), path)
    else:
        mark = "," if ending == "csv" else "\t"
        lines = [f'"{one}"{mark}"{other}"' for one, other in ROWS]
        path.write_text("\n".join([f"positive{mark}negative", *lines]) + "\n")
    found = read_contrast(ContrastSpec(files=f"pairs.{ending}", validation=0.25), tmp_path)
    assert (len(found.train.positive), len(found.validation.positive)) == (9, 3)
    for part in (found.train, found.validation):
        assert set(zip(part.positive, part.negative, strict=True)) < set(ROWS)
    assert not set(found.train.positive) & set(found.validation.positive)


def test_texts_with_a_label_are_two_sides_without_pairs(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"said": f"good {n}", "stars": 5} for n in range(8)]
    rows += [{"said": f"bad {n}", "stars": 1} for n in range(4)]
    _jsonl(tmp_path / "a.jsonl", rows)
    spec = ContrastSpec(files="*.jsonl", text="said", label="stars", positive_label="5")
    found = read_contrast(spec, tmp_path)
    assert not found.is_paired
    assert (len(found.train.positive), len(found.train.negative)) == (6, 3)
    assert (len(found.validation.positive), len(found.validation.negative)) == (2, 1)
    assert all(text.startswith("bad") for text in found.train.negative)
    wrong = spec.model_copy(update={"positive_label": "five"})
    with pytest.raises(BadSteeringInput, match=r"'five' and something else; it holds 5 \(8\), 1"):
        read_contrast(wrong, tmp_path)


def test_the_split_is_the_seeds() -> None:
    one, again, other = (
        read_contrast(ContrastSpec(builtin="formal", seed=seed)) for seed in (0, 0, 1)
    )
    assert one == again
    assert one.validation != other.validation


def test_bad_files_are_refused_with_file_and_row(tmp_path: Path) -> None:
    good: list[dict[str, object]] = [{"positive": a, "negative": b} for a, b in ROWS]
    refused: list[tuple[str, list[dict[str, object]], str]] = [
        (
            "empty",
            [*good[:2], {"positive": " ", "negative": "x"}],
            "row 3: column 'positive' is em",
        ),
        ("missing", [*good[:2], {"positive": "x"}], "row 3: column 'negative' is empty"),
        ("number", [{"positive": 1, "negative": 2}] * 4, "row 1: column 'positive' holds 1, not"),
        ("few", good[:2], "a side has 1 texts to make a direction from"),
        ("same", [*good, {"positive": "x", "negative": "x"}], "1 of 13 pairs have the same text"),
        ("name", [{"positiv": "a", "negative": "b"}], "has no column 'positive'.*mean 'positiv'"),
    ]
    for name, rows, said in refused:
        _jsonl(tmp_path / f"{name}.jsonl", rows)
        spec = ContrastSpec(files=f"{name}.jsonl", validation=0.5)
        with pytest.raises(BadSteeringInput, match=said):
            read_contrast(spec, tmp_path)
    (tmp_path / "a.csv").write_bytes(b"positive,negative\n\xff\xfe,b\n")
    (tmp_path / "a.txt").write_text("x")
    for name, said in (
        ("a.csv", "must be UTF-8|not a text"),
        ("a.txt", "known endings: .parquet"),
        ("no.csv", "no file matches"),
    ):
        with pytest.raises(BadSteeringInput, match=said):
            read_contrast(ContrastSpec(files=name), tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one of builtin and files"),
        ({"builtin": "formal", "files": "a.csv"}, "exactly one of builtin and files"),
        ({"builtin": "formel"}, "known: formal, sentiment"),
        ({"files": "a.csv", "text": "t"}, "text, label and positive_label go together"),
        ({"builtin": "formal", "text": "a", "label": "b", "positive_label": "c"}, "columns of fi"),
    ],
)
def test_specs_that_mean_nothing_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ContrastSpec.model_validate(given)
