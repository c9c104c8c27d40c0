"""How SLURM writes times, durations and names of nodes."""

from __future__ import annotations

import re
from datetime import datetime


def parse_time(text: str) -> float | None:
    """Seconds since 1970 of `2026-11-21T10:00:00`, local time; None for N/A and the like."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def parse_duration_s(text: str) -> float | None:
    """Seconds of SLURM's D-HH:MM:SS, HH:MM:SS or MM:SS; None for UNLIMITED and the like."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in [*parts, days or "0"]) or len(parts) > 3:
        return None
    seconds = 0
    for part in parts if len(parts) > 1 else [*parts, "0"]:
        seconds = 60 * seconds + int(part)
    return 86400.0 * int(days or 0) + seconds


def expand_hosts(text: str) -> tuple[str, ...]:
    """Names from SLURM's short form: `gpu[01-03,7],login1`."""
    if text in ("", "(null)", "n/a", "N/A", "None assigned"):
        return ()
    names: list[str] = []
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", text):
        names += _expanded(part)
    return tuple(names)


def _expanded(part: str) -> list[str]:
    opened = re.match(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if opened is None:
        return [part]
    head, inside, tail = opened.groups()
    names = []
    for numbers in inside.split(","):
        low, _, high = numbers.partition("-")
        for number in range(int(low), int(high or low) + 1):
            names += [f"{head}{number:0{len(low)}d}{rest}" for rest in _expanded(tail)]
    return names
