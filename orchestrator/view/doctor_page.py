"""The page that `saeq doctor` prints: what is wrong first to the eye, everything there to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from rich.text import Text

from orchestrator.doctor.base import Finding, Level
from orchestrator.doctor.examination import LEVELS, Examined

MARKS: Mapping[Level, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "warning": ("warning", "bold yellow"),
    "fault": ("FAULT", "bold red"),
}
INDENT = 2
MARK_WIDTH = max(len(word) for word, _ in MARKS.values()) + 1
DEFAULT_WIDTH = 100


def doctor_page(examined: Sequence[Examined], store: str, width: int | None) -> list[Text]:
    """All findings, a group a check, and the sum at the end.

    Args:
        store: as a person would say it.
        width: terminal cells; None for a pipe.
    """
    width = max(min(width or DEFAULT_WIDTH, DEFAULT_WIDTH), 40)
    lines: list[Text] = []
    for each in examined:
        lines.append(Text(each.name, style="bold"))
        for finding in each.findings:
            lines += _finding_lines(finding, width)
        lines.append(Text())
    lines.append(_sum(examined))
    if any(each.name == "store" for each in examined):
        lines.append(Text(f"store: {store}", style="dim"))
    return lines


def doctor_json(examined: Sequence[Examined]) -> dict[str, Any]:
    """`saeq doctor --json`: the worst level, and each check with its findings."""
    return {
        "level": max((each.level for each in examined), key=LEVELS.index, default="ok"),
        "checks": [
            {
                "name": each.name,
                "level": each.level,
                "seconds": round(each.seconds, 3),
                "findings": [
                    {"level": f.level, "what": f.what, "way_out": f.way_out} for f in each.findings
                ],
            }
            for each in examined
        ],
    }


def _finding_lines(finding: Finding, width: int) -> list[Text]:
    word, style = MARKS[finding.level]
    left = INDENT + MARK_WIDTH
    what = _wrapped(finding.what, width - left)
    lines = [Text.assemble(" " * INDENT, (word.ljust(MARK_WIDTH), style), what[0])]
    lines += [Text(" " * left + more) for more in what[1:]]
    if finding.way_out:
        way_out = _wrapped(finding.way_out, width - left - 3)
        lines.append(Text.assemble(" " * left, ("-> ", style), (way_out[0], "italic")))
        lines += [Text(" " * (left + 3) + more, style="italic") for more in way_out[1:]]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Commands and paths are not broken at their hyphens."""
    return wrap(text, width, break_on_hyphens=False, break_long_words=False) or [""]


def _sum(examined: Sequence[Examined]) -> Text:
    counts = {
        level: sum(f.level == level for each in examined for f in each.findings) for level in LEVELS
    }
    if not counts["fault"] and not counts["warning"]:
        return Text("nothing to mend", style="bold green")
    line = Text()
    worth_counting: tuple[Level, ...] = ("fault", "warning")
    for level in worth_counting:
        if counts[level]:
            words = f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}"
            line.append(f"{', ' if line else ''}{words}", style=MARKS[level][1])
    return line
