"""The table of answers: rows come back as they were, curves and reports are made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steering.errors import BadSteeringInput
from steering.measures.answers import (
    AnswerRow,
    AnswerTable,
    Condition,
    read_answers,
    write_answers,
)
from steering.measures.curves import curve_points, markdown_table


def row(prompt: int, condition: Condition, strength: float = 0.0) -> AnswerRow:
    return AnswerRow(
        half="selection",
        prompt=prompt,
        condition=condition,
        strength=strength,
        text=f"Answer \u2028 to {prompt}",
        tokens=(1, 2, 3),
        ended=True,
        effect=0.2 + 0.1 * strength + 1e-17,
        relevance=0.5,
        log_perplexity=1.0 + strength / 3,
        distinct_1=1.0,
        distinct_2=1.0,
        repeated_3grams=0.0,
        zlib_ratio=1.1,
    )


def table() -> AnswerTable:
    rows = [row(prompt, "unsteered") for prompt in (0, 1)]
    rows += [row(prompt, "steered", s) for s in (0.4, 0.1) for prompt in (1, 0)]
    return AnswerTable(rows)


def test_rows_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    rows = [*table().rows, replace(row(3, "random"), tokens=(), text="", log_perplexity=None)]
    write_answers(tmp_path / "answers.jsonl", rows)
    assert read_answers(tmp_path / "answers.jsonl") == rows


def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(path, table().rows)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(BadSteeringInput, match="line 6 is no answer"):
        read_answers(path)


def test_a_condition_comes_in_the_order_of_its_prompts() -> None:
    assert table().of("steered", "selection", 0.4).prompts == [0, 1]
    assert table().of("steered", "test").rows == []


def test_a_curve_has_the_unsteered_run_and_every_strength() -> None:
    points = curve_points(table(), "selection")
    assert [point.strength for point in points] == [0.0, 0.1, 0.4]
    assert points[0].fluency == 1.0
    assert points[2].fluency < points[1].fluency < 1.0
    assert points[2].effect > points[0].effect


def test_a_table_keeps_its_columns_apart() -> None:
    text = markdown_table([{"a": "x|y\nz", "b": 1234.5, "c": None}])
    assert text.splitlines()[2] == "| x\\|y z | 1.23e+03 | - |"
