"""Outcomes as files for people and programs: JSON, a table as Markdown and CSV, a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steering.styles.evaluations.few_shot import NAME as FEW_SHOT
from steering.styles.evaluations.outcome import SKIPPED, Figure, Outcome

JSON_FILE, TABLE_FILE, CSV_FILE = "evaluation.json", "evaluation.md", "evaluation.csv"
CURVE_FILE = "few_shot.png"


def write_evaluation(
    folder: Path, outcomes: Sequence[Outcome], about: Mapping[str, Any]
) -> list[Path]:
    """Write all files into a folder, which is made; the table first. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {**about, "evaluations": [one.to_json() for one in outcomes]}
    written = []
    for name, text in (
        (TABLE_FILE, markdown(outcomes, about)),
        (CSV_FILE, table_csv(outcomes)),
        (JSON_FILE, json.dumps(document, indent=1, allow_nan=False) + "\n"),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    curve = next((one for one in outcomes if one.name == FEW_SHOT and one.figures), None)
    if curve is not None:
        written.append(draw_few_shot(curve, folder / CURVE_FILE))
    return written


def markdown(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> str:
    """A table a test, its notes below."""
    lines = [f"# {about.get('artefact', 'Style embedding')}", ""]
    data = about.get("data")
    lines += [f"Data: {data}", ""] if data else []
    for outcome in outcomes:
        lines += [f"## {outcome.name.replace('_', ' ')}", ""]
        if outcome.figures:
            lines += ["| | estimate | 95% interval | chance | n |", "|---|---:|---|---:|---:|"]
            lines += [_markdown_row(figure) for figure in outcome.figures]
            lines.append("")
        lines += [f"- {name}: {SKIPPED}{why}" for name, why in outcome.skipped.items()]
        lines += [f"- {note}" for note in outcome.notes]
        lines += [""] if outcome.skipped or outcome.notes else []
    return "\n".join(lines).rstrip() + "\n"


def table_csv(outcomes: Sequence[Outcome]) -> str:
    """A line a figure; what was skipped has its reason in the last column."""
    file = io.StringIO()
    names = ["evaluation", "name", "estimate", "low", "high", "confidence", "n", "chance", "note"]
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    for outcome in outcomes:
        for figure in outcome.figures:
            writer.writerow({"evaluation": outcome.name, **figure.to_json()})
        for name, why in outcome.skipped.items():
            writer.writerow({"evaluation": outcome.name, "name": name, "note": SKIPPED + why})
    return file.getvalue()


def draw_few_shot(outcome: Outcome, path: Path) -> Path:
    """Accuracy over rows a group, with the interval and every resample."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    shots = [int(figure.name.removeprefix("k=")) for figure in outcome.figures]
    for k, found in outcome.details["accuracy_by_k"].items():
        axes.plot([int(k)] * len(found), found, ".", color="#9aa5b1", markersize=4, zorder=1)
    axes.fill_between(
        shots,
        [figure.interval.low for figure in outcome.figures],
        [figure.interval.high for figure in outcome.figures],
        color="#2c6fbb",
        alpha=0.25,
        linewidth=0,
    )
    means = [figure.interval.estimate for figure in outcome.figures]
    axes.plot(shots, means, "o-", color="#2c6fbb", label="mean, 95% interval")
    axes.axhline(outcome.figures[0].chance or 0.0, color="#b03a2e", linestyle="--", label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("labelled rows a group")
    axes.set_ylabel("macro accuracy, test rows")
    axes.set_title(f"Few-shot: {len(outcome.details['groups'])} groups, frozen embedding")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    canvas.savefig(path, dpi=150)
    return path


def _markdown_row(figure: Figure) -> str:
    one = figure.interval
    sign = "+" if figure.chance is None else ""
    chance = "" if figure.chance is None else f"{figure.chance:.3f}"
    interval = "" if one.low != one.low else f"{one.low:{sign}.3f} to {one.high:{sign}.3f}"
    return f"| {figure.name} | {one.estimate:{sign}.3f} | {interval} | {chance} | {figure.num} |"
