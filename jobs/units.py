"""Quantities as people write them in a sweep file (200M tokens, $60, 4h, 50GB), and back.

Lives beside the job kinds because their part of the sweep file uses it; `orchestrator.spec.units`
hands it on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

TOKEN_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
TIME_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
BYTE_UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    "KB": 1000,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}

_QUANTITY = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)")
_TIME_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*")
_COUNT = re.compile(r"[0-9][0-9_]*(\.[0-9]+)?[kKMBGT]")


class BadQuantity(ValueError):
    """A quantity that cannot be read.

    Args:
        rule: what a value of this sort is.
        way_out: how to write one.
    """

    def __init__(self, rule: str, value: str, way_out: str) -> None:
        super().__init__(rule, value, way_out)
        self.rule, self.value, self.way_out = rule, value, way_out

    def __str__(self) -> str:
        return f"{self.rule}; got {self.value}; {self.way_out}"


def parse_tokens(value: Any) -> int:
    """Read a count of tokens: `200M`, `5k`, `1.5B`, `16384`. Raises BadQuantity."""
    way_out = "write 16384, 5k, 200M or 1.5B"
    amount = _scaled(value, TOKEN_UNITS, "must be a whole number of tokens", way_out)
    if amount != amount.to_integral_value():
        raise BadQuantity("must be a whole number of tokens", repr(value), way_out)
    return int(amount)


def parse_count(value: Any) -> Any:
    """`12k` as 12000, for whole numbers in a search space; anything else comes back as it was."""
    if isinstance(value, str) and _COUNT.fullmatch(value.strip()):
        return parse_tokens(value)
    return value


def parse_usd(value: Any) -> float:
    """Read an amount of money: `60`, `$60`, `60 usd`. Raises BadQuantity."""
    rule, way_out = "must be an amount of US dollars", "write 60 or $60"
    if isinstance(value, str):
        value = re.sub(r"^\s*\$\s*|\s*(usd|USD)\s*$", "", value)
    return float(_scaled(value, {"": 1}, rule, way_out))


def parse_seconds(value: Any) -> float:
    """Read a time: `30s`, `90m`, `4h`, `1h30m`; a bare number is seconds. Raises BadQuantity."""
    return _parse_time(value, "s", "must be a time", "write 60, 30s, 90m, 4h or 1h30m")


def parse_hours(value: Any) -> float:
    """Read a time in hours: `10`, `90m`, `4h`, `2d`; a bare number is hours. Raises BadQuantity."""
    rule, way_out = "must be a time", "write 10 (hours), 90m, 4h or 2d"
    return _parse_time(value, "h", rule, way_out) / 3600


def parse_bytes(value: Any) -> int:
    """Read a size: `50GB` (powers of 1000), `512MiB` (powers of 1024). Raises BadQuantity."""
    rule, way_out = "must be a size in bytes", "write 50GB, 512MiB or 1048576"
    amount = _scaled(value, BYTE_UNITS, rule, way_out)
    if amount != amount.to_integral_value():
        raise BadQuantity("must be a whole number of bytes", repr(value), way_out)
    return int(amount)


def _scaled(value: Any, units: Mapping[str, int], rule: str, way_out: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadQuantity(rule, repr(value), way_out)
    text = value.strip() if isinstance(value, str) else str(value)
    if text.startswith("-"):
        raise BadQuantity(f"{rule}, not below zero", repr(value), way_out)
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise BadQuantity(rule, repr(value), way_out)
    if found[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        ending = f"units are {known}" if known else "it has no unit"
        raise BadQuantity(f"{rule}; {ending}", repr(value), way_out)
    try:
        return Decimal(found[1].replace("_", "")) * units[found[2]]
    except InvalidOperation as error:
        raise BadQuantity(rule, repr(value), way_out) from error


def _parse_time(value: Any, bare_unit: str, rule: str, way_out: str) -> float:
    if isinstance(value, str) and not re.fullmatch(r"\s*[0-9._]+\s*", value):
        parts = _TIME_PART.findall(value.strip())
        joined = "".join(f"{number}{unit}" for number, unit in parts)
        if not parts or joined != re.sub(r"\s", "", value):
            raise BadQuantity(rule, repr(value), way_out)
        seconds = Decimal(0)
        for number, unit in parts:
            if unit not in TIME_UNITS:
                raise BadQuantity(f"{rule}; units are s, m, h, d", repr(value), way_out)
            seconds += Decimal(number) * TIME_UNITS[unit]
        return float(seconds)
    return float(_scaled(value, {"": 1}, rule, way_out) * TIME_UNITS[bare_unit])


def format_tokens(tokens: int) -> str:
    """The shortest exact way to write a count: 200M, 5k, 16384."""
    for unit in ("T", "B", "M", "k"):
        scale = TOKEN_UNITS[unit]
        if tokens >= scale and tokens * 100 % scale == 0:
            return f"{_plain(tokens / scale)}{unit}"
    return str(tokens)


def format_rounded(count: float) -> str:
    """A count in about three digits, for tables: 131k, 1.23M."""
    for unit in ("T", "B", "M", "k"):
        # What would be rounded up to a thousand is one of the next unit.
        if count >= 0.9995 * TOKEN_UNITS[unit]:
            return f"{_three_digits(count / TOKEN_UNITS[unit])}{unit}"
    return _three_digits(count)


def format_usd(usd: float) -> str:
    """Dollars with cents; below one cent `<$0.01`."""
    if 0 < usd < 0.01:
        return "<$0.01"
    return f"-${-usd:,.2f}" if usd < 0 else f"${usd:,.2f}"


def format_duration(seconds: float) -> str:
    """A time in its two largest units: 45s, 3m 20s, 1h 30m, 2d 4h."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount or parts or unit == "s":
            parts.append((amount, unit))
    return " ".join(f"{amount}{unit}" for amount, unit in parts[:2] if amount or len(parts) == 1)


def format_bytes(num_bytes: float) -> str:
    """A size in powers of 1024: 512 MiB, 1.5 GiB."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if num_bytes >= BYTE_UNITS[unit]:
            return f"{_three_digits(num_bytes / BYTE_UNITS[unit])} {unit}"
    return f"{num_bytes:.0f} B"


def _plain(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _three_digits(number: float) -> str:
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_ANY_OF = WithJsonSchema({"type": ["integer", "string"]}, mode="validation")

Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(gt=0), _ANY_OF]
"""A positive count of tokens, written `200M`, `5k` or `16384`."""
Usd = Annotated[float, BeforeValidator(parse_usd), _ANY_OF]
"""US dollars, written `60` or `$60`."""
Seconds = Annotated[float, BeforeValidator(parse_seconds), _ANY_OF]
"""Seconds, written `60`, `90s`, `2m`."""
Hours = Annotated[float, BeforeValidator(parse_hours), _ANY_OF]
"""Hours, written `10`, `90m`, `4h`."""
Bytes = Annotated[int, BeforeValidator(parse_bytes), _ANY_OF]
"""Bytes, written `50GB`, `512MiB`."""
