"""Numbers as text for tables. What is not known is a dash, never 0 and never nan."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from jobs.units import format_duration, format_rounded, format_usd

UNKNOWN = "-"
ABOUT = "~"
BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
ASCII_BLOCKS = "_.-=+*#@"
FRACTIONS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"
"""A cell filled by 0 to 8 eighths."""


def known(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None


def number(value: Any, digits: int = 3) -> str:
    """A metric: 0.412, 63.9, 1.2e+05."""
    found = known(value)
    if found is None:
        return UNKNOWN
    if found and not 1e-4 <= abs(found) < 1e5:
        return f"{found:.1e}"
    return f"{found:.{digits}f}" if abs(found) < 10 else f"{found:.1f}"


def percent(value: Any, digits: int = 0) -> str:
    """A fraction as a percentage."""
    found = known(value)
    return UNKNOWN if found is None or abs(found) > 1e6 else f"{100 * found:.{digits}f}%"


def tokens(value: Any) -> str:
    """A count of tokens in about three digits: 16.4k, 200M."""
    found = known(value)
    return UNKNOWN if found is None or found < 0 else format_rounded(found)


def rate(value: Any) -> str:
    """Tokens per second."""
    found = known(value)
    return UNKNOWN if found is None or found <= 0 else f"{format_rounded(found)}/s"


def duration(value: Any) -> str:
    """Seconds in their two largest units: 3m 20s."""
    found = known(value)
    if found is None or found < 0 or found > 1e10:
        return UNKNOWN
    return format_duration(round(found) if found >= 1 else found)


def countdown(value: Any) -> str:
    """Seconds to go, short enough for a column: 0:42, 12:05, then 3h 20m."""
    found = known(value)
    if found is None or found < 0 or found >= 3600:
        return duration(value)
    minutes, seconds = divmod(int(found), 60)
    return f"{minutes}:{seconds:02d}"


def usd(value: Any, *, is_estimate: bool = False) -> str:
    """Dollars; `~` stands before those that rest on a typical price."""
    found = known(value)
    return UNKNOWN if found is None else (ABOUT if is_estimate else "") + format_usd(found)


def parameter(value: Any) -> str:
    """A searched value in few characters: 3e-3, 1024, 12k stays 12000, topk."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return one_line(value if isinstance(value, str) else repr(value))
    if isinstance(value, int):
        return str(value)
    if not isfinite(value):
        return UNKNOWN
    forms = [f"{value:g}", f"{value:.3g}", _scientific(value)]
    return min(reversed(forms) if 0 < abs(value) < 0.1 else forms, key=len)


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def parameters(config: Mapping[str, Any], searched: Sequence[str]) -> str:
    """The architecture, then what was searched: `topk k=16 lr=3e-3`."""
    texts = parameter_texts(config, searched)
    parts = [text if name == "architecture" else f"{name}={text}" for name, text in texts.items()]
    return " ".join(parts) or UNKNOWN


def parameter_texts(config: Mapping[str, Any], searched: Sequence[str]) -> dict[str, str]:
    """The architecture, then what was searched, name to text; what the trial lacks is left out."""
    names = ["architecture", *(name for name in searched if name != "architecture")]
    return {one_line(name): parameter(config[name]) for name in names if name in config}


def one_line(text: Any, limit: int = 400) -> str:
    """Text from a log, safe for a terminal: no line breaks, no control characters."""
    words = " ".join(str(text)[: 4 * limit].split())
    plain = "".join(c for c in words if unicodedata.category(c)[0] != "C")
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def one_line_kept(line: str) -> str:
    """A line of a traceback: indentation stays, control characters go."""
    indent = len(line) - len(line.lstrip(" "))
    return " " * indent + one_line(line)


def sparkline(values: Iterable[Any], width: int = 8, *, ascii_only: bool = False) -> str:
    """The last values as little bars; one that was not finite is a `!`."""
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    shown = [known(value) for value in list(values)[-width:]]
    finite = [value for value in shown if value is not None]
    if len(shown) < 2 or not finite:
        return ""
    low, high = min(finite), max(finite)
    return "".join("!" if v is None else blocks[_level(v, low, high)] for v in shown)


def _level(value: float, low: float, high: float) -> int:
    if not high > low:
        return 0
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return min(int(share * len(BLOCKS)), len(BLOCKS) - 1)


def progress_bar(done: float, total: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of a fixed width, in eighths of a cell."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    if ascii_only:
        filled = int(share * width)
        return "#" * filled + "." * (width - filled)
    eighths = int(share * width * 8)
    full, rest = divmod(eighths, 8)
    bar = FRACTIONS[8] * full + (FRACTIONS[rest] if rest else "")
    return bar.ljust(width, "\u00b7")
