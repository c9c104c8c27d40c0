"""Quantities as people write them, there and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator.spec.units import (
    BadQuantity,
    Tokens,
    format_bytes,
    format_duration,
    format_rounded,
    format_tokens,
    format_usd,
    parse_bytes,
    parse_count,
    parse_hours,
    parse_seconds,
    parse_tokens,
    parse_usd,
)


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("200M", 200_000_000),
        ("5k", 5_000),
        ("5K", 5_000),
        ("1.5B", 1_500_000_000),
        ("2T", 2_000_000_000_000),
        ("16384", 16384),
        ("16_384", 16384),
        (16384, 16384),
        (2e8, 200_000_000),
        ("1e6", 1_000_000),
        (" 5 M ", 5_000_000),
    ],
)
def test_tokens_are_read(written: Any, tokens: int) -> None:
    assert parse_tokens(written) == tokens


@pytest.mark.parametrize(
    "written", ["", "M", "5x", "-5", "1.2345k", "5 5", True, None, [5], float("nan"), float("inf")]
)
def test_what_is_no_count_of_tokens_is_refused_with_examples(written: Any) -> None:
    with pytest.raises(BadQuantity, match=r"whole number of tokens.*got.*write 16384, 5k, 200M"):
        parse_tokens(written)


def test_an_unknown_unit_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadQuantity, match="units are k, K, M, B, G, T; got '5x'"):
        parse_tokens("5x")


def test_zero_tokens_are_refused_by_the_type() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        TypeAdapter(Tokens).validate_python(0)


def test_money_time_and_bytes_are_read() -> None:
    assert [parse_usd(v) for v in (60, "60", "$60", "60 usd", "0.5")] == [60, 60, 60, 60, 0.5]
    assert [parse_seconds(v) for v in (60, "30s", "90m", "4h", "1h30m", "1h 30m", "2d")] == [
        *(60, 30, 5400, 14400, 5400, 5400, 172800)
    ]
    assert [parse_hours(v) for v in (10, "10", "90m", "4h", "2d")] == [10, 10, 1.5, 4, 48]
    assert [parse_bytes(v) for v in ("50GB", "512MiB", "1 kB", 7)] == [50 * 10**9, 2**29, 1000, 7]


@pytest.mark.parametrize("written", ["-$5", "sixty", "60 eur", True, None])
def test_what_is_no_money_is_refused(written: Any) -> None:
    with pytest.raises(BadQuantity, match=r"US dollars.*write 60 or \$60"):
        parse_usd(written)


@pytest.mark.parametrize("written", ["4 fortnights", "h", "4h30", "-4h", True, None])
def test_what_is_no_time_is_refused(written: Any) -> None:
    with pytest.raises(BadQuantity, match="must be a time"):
        parse_hours(written)


@pytest.mark.parametrize("written", ["50 gigs", "0.3B", "-1GB", None])
def test_what_is_no_size_is_refused(written: Any) -> None:
    with pytest.raises(BadQuantity, match="bytes"):
        parse_bytes(written)


def test_only_a_number_with_a_unit_counts_as_a_count_in_a_space() -> None:
    assert [parse_count(v) for v in ("12k", "1.5M", "topk", "k", 5, True)] == [
        *(12_000, 1_500_000, "topk", "k", 5, True)
    ]


@given(st.integers(min_value=1, max_value=10**13))
def test_formatted_tokens_read_back_as_the_same(tokens: int) -> None:
    assert parse_tokens(format_tokens(tokens)) == tokens


def test_quantities_are_written_as_people_do() -> None:
    counts = (200_000_000, 5_000, 16384, 1_500_000, 1, 0)
    assert [format_tokens(n) for n in counts] == ["200M", "5k", "16384", "1.5M", "1", "0"]
    assert [format_rounded(n) for n in (131_072, 1_234_567, 12)] == ["131k", "1.23M", "12"]
    assert [format_usd(n) for n in (0, 0.004, 1234.5)] == ["$0.00", "<$0.01", "$1,234.50"]
    times = (0, 0.5, 45, 200, 5400, 187200)
    expected = ["0s", "0.5s", "45s", "3m 20s", "1h 30m", "2d 4h"]
    assert [format_duration(n) for n in times] == expected
    assert [format_bytes(n) for n in (10, 512 * 2**20, 1.5 * 2**30)] == [
        "10 B",
        "512 MiB",
        "1.5 GiB",
    ]
