"""Labelled text is read as meant, or refused with the row; tokens get the labels of their spans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from steering.errors import BadSteeringInput
from steering.probes.data import LabelledSpec, LabelledTexts, Span, read_all_labelled, read_labelled
from steering.probes.data_builtin import BUILTIN
from steering.probes.profile import profile, without_rare_labels


def write(path: Path, rows: Sequence[object]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pandas

        frame = pandas.DataFrame(rows)
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
    return str(path)


def read(path: str, **options: Any) -> LabelledTexts:
    return read_all_labelled(LabelledSpec(files=path, **options))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("values", [(0, 1, 1), (False, True, True), (0.0, 1.0, 1.0)])
def test_binary_labels_read_alike_from_every_format(
    tmp_path: Path, ending: str, values: tuple[float, ...]
) -> None:
    rows = [{"text": f"text {n}", "toxic": v, "user": n // 2} for n, v in enumerate(values)]
    data = read(write(tmp_path / f"a.{ending}", rows), label="toxic", item="user")
    assert data.task == "binary"
    assert data.label_names == ("toxic",)
    assert data.y_NL[:, 0].tolist() == [False, True, True]
    assert list(data.items) == ["0", "0", "1"]


def test_classes_become_columns(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "topic": topic} for n, topic in enumerate("bacab")]
    path = write(tmp_path / "a.csv", rows)
    data = read(path, label="topic")
    assert (data.task, data.label_names) == ("multiclass", ("a", "b", "c"))
    assert data.class_N.tolist() == [1, 0, 2, 0, 1]
    assert (data.y_NL.sum(axis=1) == 1).all()
    one = read(path, label="topic", positive="a")
    assert (one.task, one.label_names) == ("binary", ("a",))
    assert one.y_NL[:, 0].tolist() == [False, True, False, True, False]


def test_several_labels_from_lists_columns_or_a_separator(tmp_path: Path) -> None:
    lists: list[dict[str, Any]] = [
        {"text": f"t{n}", "labels": some} for n, some in enumerate([["b"], [], ["a", "b"]])
    ]
    columns = [{"text": f"t{n}", "a": n == 2, "b": n != 1} for n in range(3)]
    joined = [{"text": f"t{n}", "labels": some} for n, some in enumerate(["b", "", "a|b"])]
    for data in (
        read(write(tmp_path / "l.jsonl", lists), label="labels"),
        read(write(tmp_path / "c.csv", columns), label=("a", "b")),
        read(write(tmp_path / "j.jsonl", joined), label="labels", separator="|"),
    ):
        assert (data.task, data.label_names) == ("multilabel", ("a", "b"))
        assert data.y_NL.tolist() == [[False, True], [False, False], [True, True]]


def test_spans_label_the_tokens_they_hold_and_their_text(tmp_path: Path) -> None:
    text = "say damn it, you fool"
    rows = [
        {"text": text, "spans": [{"start": 4, "end": 8, "label": "swear"}]},
        {"text": text + "!", "spans": [{"start": 17, "end": 21, "label": "insult"}]},
        {"text": "fine", "spans": []},
    ]
    data = read(write(tmp_path / "a.jsonl", rows), spans="spans")
    assert (data.task, data.label_names) == ("multilabel", ("insult", "swear"))
    assert data.y_NL.tolist() == [[False, True], [True, False], [False, False]]
    chars = [(0, 3), (3, 8), (8, 9), (9, 11), (11, 12), (12, 16), (16, 21)]
    assert [text[a:b] for a, b in chars][1] == " damn"
    assert data.token_labels(0, chars)[:, 1].tolist() == [False, True, *[False] * 5]
    assert data.token_labels(1, chars)[:, 0].tolist() == [False] * 6 + [True]


def test_a_space_before_a_span_is_not_in_it() -> None:
    data = LabelledTexts(
        ["a b c"], ["0"], np.ones((1, 1), bool), ("x",), "binary", [(Span(0, 1, 0),)]
    )
    assert data.token_labels(0, [(0, 1), (1, 3), (3, 5)])[:, 0].tolist() == [True, False, False]


def test_spans_without_labels_go_with_the_label_column(tmp_path: Path) -> None:
    rows = [
        {"text": "x y", "toxic": 1, "where": "[[2, 3]]"},
        {"text": "z", "toxic": 0, "where": ""},
    ]
    data = read(write(tmp_path / "a.jsonl", rows), label="toxic", spans="where")
    assert data.spans == [(Span(2, 3, 0),), ()]
    assert data.y_NL[:, 0].tolist() == [True, False]


@pytest.mark.slow
def test_a_hugging_face_dataset_is_read_with_its_class_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    rows = {"text": [f"t{n}" for n in range(6)], "label": [0, 1, 2, 0, 1, 2]}
    features = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y", "z"])})
    Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    data = read_all_labelled(LabelledSpec(dataset=str(tmp_path), label="label", max_texts=5))
    assert data.label_names == ("x", "y", "z")
    assert data.class_N.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"text": "", "y": 1}], {"label": "y"}, "row 1: column 'text' is empty"),
        ([{"text": "a", "y": 1}, {"text": "b", "y": None}], {"label": "y"}, "row 2: column 'y'"),
        ([{"text": "a", "y": 1}], {"label": "z"}, "has no column 'z'"),
        ([{"text": "a", "y": "p"}, {"text": "b", "y": "n"}], {"label": "y"}, "positive: p"),
        ([{"text": "a", "y": "p"}], {"label": "y", "positive": "q"}, "is no value of column"),
        ([{"text": "a", "y": 2}], {"label": ("y",)}, "must be 0 or 1"),
        ([{"text": "a", "s": [{"start": 0, "end": 2}]}], {"spans": "s"}, "not inside the text"),
        ([{"text": "a", "s": [{"begin": 0}]}], {"spans": "s"}, r"a span is \{start, end, label\}"),
        ([{"text": "a", "s": "[["}], {"spans": "s"}, "is no JSON"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadSteeringInput, match=said):
        read(write(tmp_path / "a.jsonl", rows), **options)


def test_missing_files_and_odd_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSteeringInput, match="no file matches"):
        read(str(tmp_path / "no.csv"), label="y")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(BadSteeringInput, match="known endings"):
        read(str(tmp_path / "a.doc"), label="y")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"files": "a.csv"},
        {"files": "a.csv", "builtin": "python-docs", "label": "y"},
        {"builtin": "python-docs", "label": "y"},
        {"files": "a.csv", "label": "y", "config": "en"},
        {"files": "a.csv", "label": ("y", "z"), "positive": "y"},
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LabelledSpec(**options)


def repeated(tmp_path: Path) -> str:
    texts = ["Same text.", "other", "same  text. ", "third", "third"]
    rows = [{"text": t, "y": n % 2, "who": "aabcc"[n]} for n, t in enumerate(texts)]
    return write(tmp_path / "a.csv", rows)


def test_the_same_text_under_two_items_is_a_leak(tmp_path: Path) -> None:
    path = repeated(tmp_path)
    with pytest.raises(BadSteeringInput, match="1 texts repeat under another item.*under a and b"):
        read(path, label="y", item="who")
    assert list(read(path, label="y", item="who", repeats="drop").items) == ["a", "a", "c", "c"]
    assert list(read(path, label="y", item="who", repeats="one_item").items) == [*"aaacc"]


def test_items_that_share_texts_in_a_chain_become_one(tmp_path: Path) -> None:
    pairs = [("x", "c"), ("y", "c"), ("x", "a"), ("z", "b"), ("y", "b"), ("w", "d")]
    rows = [{"text": t, "y": n % 2, "who": who} for n, (t, who) in enumerate(pairs)]
    data = read(write(tmp_path / "a.csv", rows), label="y", item="who", repeats="one_item")
    assert list(data.items) == [*"cccccd"]


def test_rare_labels_are_refused_with_the_profile_or_dropped_if_asked(tmp_path: Path) -> None:
    labels = [["often"] * (n % 2 == 0) + ["rare"] * (n < 3) for n in range(30)]
    rows = [{"text": f"t{n}", "labels": some} for n, some in enumerate(labels)]
    path = write(tmp_path / "a.jsonl", rows)
    spec = LabelledSpec(files=path, label="labels")
    with pytest.raises(BadSteeringInput, match=r"rare \(3\).*drop_rare_labels") as error:
        read_labelled(spec)
    assert "neg:pos" in str(error.value)
    data = read_labelled(spec.model_copy(update={"drop_rare_labels": True}))
    assert data.label_names == ("often",)
    assert data.dropped == {"rare": 3}
    assert len(data) == 30


def test_a_rare_class_takes_its_texts_along_and_items_count_not_rows(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "c": "abc"[min(n // 20, 2)], "who": n} for n in range(40)]
    rows += [{"text": f"u{n}", "c": "c", "who": 99} for n in range(30)]  # 30 rows of one author
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(BadSteeringInput, match=r"c \(1\)"):
        read_labelled(LabelledSpec(files=path, label="c", item="who"))
    data = read_labelled(LabelledSpec(files=path, label="c", item="who", drop_rare_labels=True))
    assert data.label_names == ("a", "b")
    assert len(data) == 40


def test_a_label_that_nearly_all_have_is_as_rare(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "y": int(n > 3)} for n in range(40)]
    with pytest.raises(BadSteeringInput, match=r"y \(4\)"):
        read_labelled(LabelledSpec(files=write(tmp_path / "a.csv", rows), label="y"))
    with pytest.raises(BadSteeringInput, match="too few labels are left"):
        read_labelled(
            LabelledSpec(files=write(tmp_path / "a.csv", rows), label="y", drop_rare_labels=True)
        )


def test_the_profile_counts_texts_items_and_the_majority(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "y": int(n < 8), "who": n // 4} for n in range(40)]
    found = profile(read(write(tmp_path / "a.csv", rows), label="y", item="who"))
    (label,) = found.labels
    assert (label.positives, label.positive_items, label.negative_items) == (8, 2, 8)
    assert label.imbalance == pytest.approx(4.0)
    assert found.majority_share == pytest.approx(0.8)
    assert found.num_items == 10
    assert json.loads(json.dumps(found.as_json()))["majority_share"] == pytest.approx(0.8)
    assert "4.0" in found.table()


def test_dropping_a_label_renumbers_the_spans() -> None:
    spans = [(Span(0, 1, 0), Span(0, 1, 1))] + [(Span(0, 1, 1),)] * 4
    y_NL = np.array([[True, True]] + [[False, True]] * 4)
    data = LabelledTexts([*"abcde"], [*"abcde"], y_NL, ("rare", "kept"), "multilabel", spans)
    left = without_rare_labels(data, 2, drop=True)
    assert left.label_names == ("kept",)
    assert left.spans == [(Span(0, 1, 0),)] * 5


def test_the_manual_marks_its_code() -> None:
    data = read_labelled(LabelledSpec(builtin="python-docs"))
    assert data.label_names == ("code",)
    assert data.spans is not None
    code = [
        t[s.start : s.end] for t, some in zip(data.texts, data.spans, strict=True) for s in some
    ]
    assert len(code) > 100
    assert sum(piece.startswith(">>>") for piece in code) > 10
    assert len(set(data.items)) > 40
    assert len(data.texts) == len(set(data.texts))


def test_the_parts_of_the_manual_are_classes() -> None:
    data = read_labelled(LabelledSpec(builtin="manual-parts"))
    assert data.task == "multiclass"
    assert len(data.label_names) == 6
    assert profile(data).majority_share < 0.5


def test_repeats_are_dealt_with_in_built_in_data_too(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, items = ["a b", "c", "A  b", "d"], ["one", "two", "two", "three"]
    y_N1 = np.array([[True], [False], [True], [False]])
    monkeypatch.setitem(
        BUILTIN, "manual-parts", lambda: LabelledTexts(texts, items, y_N1, ("y",), "binary")
    )

    def read_built_in(**changes: Any) -> LabelledTexts:
        return read_all_labelled(LabelledSpec(builtin="manual-parts", **changes))

    with pytest.raises(BadSteeringInput, match="1 texts repeat under another item"):
        read_built_in()
    assert list(read_built_in(repeats="drop").texts) == ["a b", "c", "d"]
    assert list(read_built_in(repeats="one_item").items) == ["one", "one", "one", "three"]
    assert len(read_built_in(max_texts=2)) == 2
