"""Splits keep items whole and labels even, follow from the seed, and refuse leaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.errors import BadSteeringInput
from steering.probes.data import LabelledTexts, Span
from steering.probes.splits import PARTS, Split, check_split, split_labelled


def data_of(y_NL: np.ndarray, items: list[str]) -> LabelledTexts:
    names = tuple(f"label{n}" for n in range(y_NL.shape[1]))
    task = "binary" if len(names) == 1 else "multilabel"
    return LabelledTexts([f"t{n}" for n in range(len(items))], items, y_NL, names, task)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows_an_item=st.integers(1, 4))
def test_items_stay_whole_and_every_row_has_one_part(seed: int, rows_an_item: int) -> None:
    rng = np.random.default_rng(seed)
    data = data_of(rng.random((240, 2)) < 0.4, [str(n // rows_an_item) for n in range(240)])
    split = split_labelled(data, seed=seed)
    part_of: dict[str, str] = {}
    for part in PARTS:
        for row in split.rows[part]:
            assert part_of.setdefault(data.items[row], part) == part
    assert sorted(row for part in PARTS for row in split.rows[part]) == list(range(240))
    for part, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        assert len(split.rows[part]) / 240 == pytest.approx(share, abs=0.06)


def test_rare_labels_are_dealt_out_evenly() -> None:
    rng = np.random.default_rng(0)
    y_NL = np.stack([rng.random(2000) < share for share in (0.5, 0.05, 0.01)], axis=1)
    data = data_of(y_NL, [str(n) for n in range(2000)])
    split = split_labelled(data)
    for label in range(3):
        for part, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
            own = y_NL[list(split.rows[part]), label].sum() / y_NL[:, label].sum()
            assert own == pytest.approx(share, abs=0.06)


def test_the_seed_decides_and_nothing_else() -> None:
    data = data_of(np.arange(200)[:, None] % 3 == 0, [str(n) for n in range(200)])
    assert split_labelled(data, seed=1) == split_labelled(data, seed=1)
    assert split_labelled(data, seed=1) != split_labelled(data, seed=2)


def test_spans_are_dealt_out_by_their_length() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 120)
    spans = [(Span(0, int(n), 0),) for n in lengths]
    data = LabelledTexts(
        ["x" * 190 + f"{n:010d}" for n in range(120)],
        [str(n) for n in range(120)],
        np.ones((120, 1), bool),
        ("code",),
        "binary",
        spans,
    )
    split = split_labelled(data)
    shares = [lengths[list(split.rows[part])].sum() / lengths.sum() for part in PARTS]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


def test_a_label_in_one_item_alone_cannot_be_split() -> None:
    y_N1 = np.array([[n < 20] for n in range(60)])
    items = ["one"] * 20 + [str(n) for n in range(40)]
    with pytest.raises(BadSteeringInput, match="has no text with label0"):
        split_labelled(data_of(y_N1, items))


def test_a_planted_leak_is_caught() -> None:
    data = data_of(np.array([[True], [False]] * 10), [str(n // 2) for n in range(20)])
    whole = {
        "train": tuple(range(11)),
        "validation": tuple(range(11, 16)),
        "test": tuple(range(16, 20)),
    }
    with pytest.raises(BadSteeringInput, match="the same item is in two parts.*in train and val"):
        check_split(Split(whole), data)  # type: ignore[arg-type]
    texts = [*data.texts]
    texts[19] = texts[0].upper() + " "
    leaking = LabelledTexts(texts, data.items, data.y_NL, data.label_names, "binary")
    fair = {
        "train": tuple(range(10)),
        "validation": tuple(range(10, 16)),
        "test": tuple(range(16, 20)),
    }
    check_split(Split(fair), data)  # type: ignore[arg-type]
    with pytest.raises(BadSteeringInput, match="the same text is in two parts"):
        check_split(Split(fair), leaking)  # type: ignore[arg-type]


def test_shares_must_add_up() -> None:
    data = data_of(np.array([[True], [False]] * 10), [str(n) for n in range(20)])
    with pytest.raises(BadSteeringInput, match="add up to 1"):
        split_labelled(data, (0.7, 0.2, 0.2))


def test_a_part_of_one_item_is_refused_with_the_way_out() -> None:
    """Eight texts of every item: enough texts, too few items for an interval over them."""
    data = data_of(np.arange(64)[:, None] % 2 == 0, [str(n // 8) for n in range(64)])
    with pytest.raises(BadSteeringInput, match="at least 2 items.*of 8 items.*max_texts"):
        split_labelled(data)
    split_labelled(data, (0.5, 0.25, 0.25))
