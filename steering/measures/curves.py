"""Effect, relevance and fluency over strength: as a table, as CSV and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from steering.measures.answers import AnswerRow, AnswerTable, Half
from steering.measures.objective import scores
from steering.measures.pictures import Line, draw_curves

__all__ = [
    "CURVE",
    "CurvePoint",
    "curve_points",
    "markdown_table",
    "read_curve",
    "write_csv",
    "write_trial_report",
]

CURVE = "report/curve.csv"
"""Of an artefact."""
SHOWN_ANSWERS = 4
"""Prompts whose answers are shown side by side."""


@dataclass(frozen=True)
class CurvePoint:
    """A strength and what answers at it come to; 0 is the unsteered run."""

    strength: float
    overall: float
    effect: float
    relevance: float
    fluency: float
    perplexity: float | None
    distinct_2: float
    repeated_3grams: float
    num_tokens: float


def curve_points(table: AnswerTable, half: Half) -> list[CurvePoint]:
    """A point a strength, in ascending order, the unsteered run among them."""
    unsteered = table.of("unsteered", half)
    steered = table.of("steered", half)
    strengths = sorted({row.strength for row in steered.rows})
    found = [_point(0.0, unsteered, unsteered)]
    found += [_point(one, table.of("steered", half, one), unsteered) for one in strengths]
    return sorted(found, key=lambda point: point.strength)


def _point(strength: float, answers: AnswerTable, unsteered: AnswerTable) -> CurvePoint:
    prompts = set(answers.prompts)
    measured = answers.measured
    found = scores(measured, unsteered.to_prompts(prompts).measured)
    means = measured.fluency.mean()
    return CurvePoint(
        strength,
        found.overall,
        found.effect,
        found.relevance,
        found.fluency,
        None if means.perplexity != means.perplexity else means.perplexity,
        means.distinct_2,
        means.repeated_3grams,
        means.num_tokens,
    )


def write_trial_report(
    folder: Path,
    points: Sequence[CurvePoint],
    table: AnswerTable,
    results: Mapping[str, Any],
    strength: float,
    prompts: Sequence[str],
    notes: Sequence[str] = (),
) -> None:
    """curve.csv, curve.png and answers.md of one trial, into an artefact's folder for people.

    Args:
        notes: what is to be known of the direction, a paragraph each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / Path(CURVE).name, [asdict(point) for point in points])
    line = Line("", tuple(points), strength)
    draw_curves(folder / "curve.png", [line])
    text = ["# Steering: one trial", "", *(line for note in notes for line in (note, ""))]
    text += [f"Strength {strength:g}, on prompts not chosen on:", ""]
    text += [markdown_table(_result_rows(results)), "", "## Answers", ""]
    text += _answers(table, strength, prompts)
    (folder / "answers.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def read_curve(path: Path) -> list[CurvePoint]:
    """What `write_trial_report` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            {name: float(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    return [CurvePoint(**row) for row in rows]  # type: ignore[arg-type]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of equal keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(rows[0]) if rows else [f.name for f in fields(CurvePoint)]
        )
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rows of equal keys; numbers with three digits."""
    if not rows:
        return "(nothing)"
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'|'.join('---' for _ in names)}|"]
    lines += [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value).replace("|", "\\|").replace("\n", " ")


def _result_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for condition, said in results["test"].items():
        if "overall" not in said:
            continue
        row: dict[str, Any] = {"condition": condition}
        for name in ("overall", "effect", "relevance", "fluency"):
            one = said[name]
            row[name] = f"{one['estimate']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
        row |= {"perplexity": said["perplexity"], "tokens": said["num_tokens"]}
        rows.append(row)
    return rows


def _answers(table: AnswerTable, strength: float, prompts: Sequence[str]) -> list[str]:
    conditions = ("unsteered", "steered", "prompted", "random")
    by_condition: dict[str, dict[int, AnswerRow]] = {
        condition: {
            row.prompt: row
            for row in table.rows
            if row.condition == condition and row.half == "test" and row.strength in (0.0, strength)
        }
        for condition in conditions
    }
    lines: list[str] = []
    for place in sorted(by_condition["steered"])[:SHOWN_ANSWERS]:
        lines += [f"**{prompts[place]}**", ""]
        for condition in conditions:
            row = by_condition[condition].get(place)
            if row is not None:
                text = " ".join(row.text.split()) or "(empty)"
                lines.append(f"- {condition} (effect {row.effect:.2f}): {text}")
        lines.append("")
    return lines
