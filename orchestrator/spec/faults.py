"""What is wrong with a sweep file, all of it at once: place, rule, value, way out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of the file down to a value."""

MAX_VALUE_CHARACTERS = 80


class _NotShown:
    def __repr__(self) -> str:
        return "NOT_SHOWN"

    def __reduce__(self) -> str:
        return "NOT_SHOWN"


NOT_SHOWN = _NotShown()
"""Stands for the value of a fault that has none to show: a missing key, a broken file."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. Positions are known only where there was a file."""

    path: KeyPath
    rule: str
    """What must hold, or what does not."""
    value: Any = NOT_SHOWN
    way_out: str = ""
    suggestion: str | None = None
    """What was probably meant, for a misspelling."""
    line: int | None = None
    """Counted from 1."""
    column: int | None = None
    """Counted from 1."""

    @property
    def where(self) -> str:
        """The path as people write it: `space.lr.loguniform`, `needs[0].sweep`."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text

    def under(self, prefix: KeyPath) -> Fault:
        """The same fault seen from further up."""
        return replace(self, path=(*prefix, *self.path))

    def worded(self, source: str = "") -> str:
        """One line: `sweep.yaml:12: space.lr: rule; got value; way out. Did you mean 'lr'?`"""
        position = f"{source}:{self.line}: " if self.line else f"{source}: " if source else ""
        said = [self.rule]
        if self.value is not NOT_SHOWN:
            said.append(f"got {show(self.value)}")
        if self.way_out:
            said.append(self.way_out)
        ending = f". Did you mean {self.suggestion!r}?" if self.suggestion else ""
        place = f"{self.where}: " if self.path else ""
        return f"{position}{place}{'; '.join(said)}{ending}"


class SpecFaults(ValueError):
    """All faults of one sweep file, in the order of its lines.

    Args:
        faults: at least one.
        source: name of the file, for the messages.
    """

    def __init__(self, faults: Iterable[Fault], source: str = "") -> None:
        known: dict[tuple[object, ...], Fault] = {}
        for fault in faults:
            known.setdefault((fault.path, fault.rule, repr(fault.value)), fault)
        self.faults = tuple(sorted(known.values(), key=lambda f: (f.line or 0, f.column or 0)))
        self.source = source
        super().__init__(self.faults, source)

    def __str__(self) -> str:
        lines = [fault.worded(self.source) for fault in self.faults]
        noun = "fault" if len(lines) == 1 else "faults"
        return "\n".join([*lines, f"{len(lines)} {noun}{f' in {self.source}' * bool(self.source)}"])

    def as_json(self) -> list[dict[str, Any]]:
        """The faults as plain values, for `--json`."""
        return [
            {
                "line": fault.line,
                "column": fault.column,
                "where": fault.where,
                "rule": fault.rule,
                "value": None if fault.value is NOT_SHOWN else show(fault.value),
                "way_out": fault.way_out,
                "suggestion": fault.suggestion,
            }
            for fault in self.faults
        ]


def show(value: Any) -> str:
    """A value as it would stand in the file, on one line and not too long."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=True)
    except (TypeError, ValueError):
        text = repr(value)
    if isinstance(value, str):
        text = f"'{text[1:-1]}'"
    if len(text) > MAX_VALUE_CHARACTERS:
        return f"{text[:MAX_VALUE_CHARACTERS]}..."
    return text


def listed(names: Iterable[object]) -> str:
    """Names with commas between them."""
    return ", ".join(str(name) for name in names)


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is near."""
    known = list(known)
    text = str(name)
    by_folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    folded = text.lower().replace("-", "_")
    if folded in by_folded:
        return by_folded[folded]
    near = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    if near:
        return by_folded[near[0]]
    starts = [c for f, c in by_folded.items() if len(folded) > 2 and f.startswith(folded)]
    return starts[0] if len(starts) == 1 else None


def unknown_key(path: KeyPath, known: Sequence[str], what: str = "key") -> Fault:
    """A key that nothing takes; the path's last part is the key."""
    suggestion = closest(path[-1], known)
    is_short = known and not suggestion
    way_out = f"known here: {listed(sorted(known))}" if is_short else "rename or remove it"
    return Fault(path, f"unknown {what}", way_out=way_out, suggestion=suggestion)


def value_at(data: Any, path: KeyPath) -> Any:
    """The value under a path, or NOT_SHOWN where there is none."""
    for part in path:
        is_listed = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if not is_listed and not (isinstance(data, Mapping) and part in data):
            return NOT_SHOWN
        data = data[part]
    return data
