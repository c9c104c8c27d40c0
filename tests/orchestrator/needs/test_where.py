"""Conditions on artefacts: what can be said, what is refused, and that nothing is evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.needs.where import BadCondition, Comparison, parse_where

VALUES = {"l0": 32.5, "k": 64, "architecture": "topk", "fvu": None, "tied": True}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("l0 < 64", True),
        ("l0 < 64 and k == 64", True),
        ("l0 < 64 and k > 64", False),
        ("16 <= l0 <= 33", True),
        ("64 >= k", True),
        ("l0 > -1.5e0", True),
        ("architecture == 'topk'", True),
        ('architecture != "topk"', False),
        ("k != 64 and l0 < 1", False),
        ("(l0 < 64) and (k == 64 and l0 > 1)", True),
        ("fvu < 1", False),
        ("fvu != 1", False),
        ("nothing < 1", False),
        ("architecture == 3", False),
        ("tied == 1", False),
    ],
)
def test_a_condition_holds_of_what_it_is_true_of(text: str, holds: bool) -> None:
    assert parse_where(text).holds(VALUES) is holds


def test_no_condition_is_always_true() -> None:
    assert parse_where(None).holds({})


def test_names_are_told_once_each() -> None:
    assert parse_where("8 < l0 < 64 and k == 4").names == ("l0", "k")
    assert parse_where("64 > l0").comparisons == (Comparison("l0", "<", 64),)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "is no condition"),
        ("l0 <", "is no condition"),
        ("l0", "has 'l0' where a comparison should be"),
        ("l0 < 64 or k == 4", "where a comparison should be"),
        ("not l0 < 64", "where a comparison should be"),
        ("l0 < k", "where a number or a quoted text should be"),
        ("3 < 4", "compares no metric or parameter"),
        ("l0 in [1, 2]", "may compare by <, <=, >, >=, ==, != alone"),
        ("l0 is 3", "may compare by"),
        ("architecture < 'topk'", "where only == and != go"),
        ("tied == True", "where a number or a quoted text should be"),
        ("l0 < float('inf')", "where a number or a quoted text should be"),
        ("__import__('os').system('true') == 0", "compares no metric"),
        ("(l0 := 3) < 4", "compares no metric"),
        ("l0 < 64; k = 3", "is no condition"),
    ],
)
def test_anything_else_is_refused_with_the_way_out(text: str, detail: str) -> None:
    with pytest.raises(BadCondition) as refused:
        parse_where(text)
    assert detail in str(refused.value)
    assert "write comparisons such as l0 < 64, joined by and" in str(refused.value)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    try:
        parse_where(text).holds(VALUES)
    except BadCondition:
        return
