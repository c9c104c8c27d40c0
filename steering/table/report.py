"""Everything that a finished table leaves for people, and as JSON for programs."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.intervals import Interval
from steering.table.answers import FLUENCY

if TYPE_CHECKING:
    from steering.prompt_banks.leak import Leak
    from steering.table.measuring import Table
    from steering.table.study import TableStudy

__all__ = ["TABLE_MD", "as_json", "write_report"]

TABLE_MD, TABLE_TEX, TABLE_CSV, TABLE_PNG = "table.md", "table.tex", "table.csv", "table.png"
GENERATIONS, PROMPTS, COMPOSITION = "generations.jsonl", "prompts.jsonl", "composition.txt"
STRENGTHS_CSV, STRENGTHS_PNG = "strengths.csv", "strengths.png"


def write_report(
    folder: Path,
    study: TableStudy,
    tables: Sequence[Table],
    leaks: Sequence[Leak],
    *,
    composition: str,
    notes: Sequence[str],
    prompts: Sequence[str],
) -> None:
    """Write tables, pictures, and every answer with its group into a folder, which is made.

    Args:
        composition: the printed report of how groups' vectors were composed.
        notes: lines about the run, below each table.
        prompts: what was asked in words, one for each of `study.all_asked()`.
    """
    from steering.table.page import csv_text, latex, markdown
    from steering.table.picture import draw_strengths, draw_tables

    folder.mkdir(parents=True, exist_ok=True)
    pages = [markdown(table, leak, notes) for table, leak in zip(tables, leaks, strict=True)]
    _write(folder / TABLE_MD, "\n".join(pages))
    _write(folder / TABLE_TEX, "\n".join(latex(table) for table in tables))
    _write(folder / TABLE_CSV, csv_text(tables))
    _write(folder / COMPOSITION, composition + "\n")
    draw_tables(tables, folder / TABLE_PNG)
    points = [dataclasses.asdict(point) for point in study.strength_points()]
    draw_strengths(points, study.chosen.strength, folder / STRENGTHS_PNG)
    with (folder / STRENGTHS_CSV).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(points[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
    _write_answers(folder, study, prompts)


def as_json(value: Any) -> Any:
    """Dataclasses as JSON: intervals as [estimate, low, high], null for what is not a number."""
    if isinstance(value, Interval):
        return [as_json(one) for one in (value.estimate, value.low, value.high)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: as_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): as_json(one) for name, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, list | tuple) else value


def _write_answers(folder: Path, study: TableStudy, prompts: Sequence[str]) -> None:
    asked = study.all_asked()
    groups = study.nearest_groups(asked)
    with (folder / GENERATIONS).open("w", encoding="utf-8") as file:
        for one, prompt, group in zip(asked, prompts, groups, strict=True):
            answer = study.answer_of(one)
            said = {
                "bank": one.question.bank,
                "prompt_id": one.question.prompt.id,
                "condition": one.condition,
                "target": one.target,
                "seed": one.seed,
                "strength": one.strength,
                "prompt": prompt,
                "answer": answer.text,
                "ended": answer.ended,
                "nearest_group": group,
                **{name: answer.fluency[name] for name in FLUENCY},
            }
            file.write(json.dumps(said) + "\n")
    choosing = {question.id for question in study.choosing.questions}
    with (folder / PROMPTS).open("w", encoding="utf-8") as file:
        for question in (*study.choosing.questions, *study.reporting.questions):
            half = "choosing" if question.id in choosing else "table"
            said = {"bank": question.bank, "half": half, **dataclasses.asdict(question.prompt)}
            file.write(json.dumps(said) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
