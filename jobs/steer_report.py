"""The page of a whole steering sweep: curves over strength, and the table of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.kind import FinishedTrial
from steering.measures.curves import CURVE, CurvePoint, markdown_table, read_curve, write_csv
from steering.measures.pictures import Line, draw_curves

__all__ = ["write_sweep_report"]

MAX_LINES = 12
"""Curves in one picture: the best ones."""
_NAMED = (
    *("latent", "num_latents", "label", "seed", "input"),
    *("tau", "top_k", "centre"),
    *("draws", "draw_temperature", "draw_seed"),
)
"""Fields whose value alone would say nothing."""


def write_sweep_report(trials: Sequence[FinishedTrial], folder: Path) -> list[Path]:
    """steering.md, curves.png, curves.csv and trials.csv. Returns them, the page in front."""
    ranked = sorted(trials, key=lambda trial: -trial.metrics.get("test_overall", 0.0))
    lines = _lines(ranked)
    rows = [{"curve": line.name, **point.__dict__} for line in lines for point in line.points]
    write_csv(folder / "curves.csv", rows)
    table = [_row(trial) for trial in ranked]
    write_csv(folder / "trials.csv", table)
    draw_curves(folder / "curves.png", lines[:MAX_LINES])
    page = folder / "steering.md"
    page.write_text(_page(table, lines), encoding="utf-8")
    return [page, *(folder / name for name in ("curves.png", "curves.csv", "trials.csv"))]


def _page(table: Sequence[dict[str, Any]], lines: Sequence[Line]) -> str:
    shown = f"The best {MAX_LINES} of {len(lines)} curves. " if len(lines) > MAX_LINES else ""
    return "\n".join(
        [
            "# Steering",
            "",
            "Each trial's strength was chosen on one half of the prompts; `test` numbers are of the"
            " other half. `prompted` asks for it in words, `random` adds a random direction of the"
            " same length, both on the same prompts.",
            "",
            markdown_table(table),
            "",
            "## Over strength",
            "",
            f"{shown}On the half that strengths were chosen on; 0 is the unsteered model, a circle"
            " the chosen strength.",
            "",
            "![curves over strength](curves.png)",
            "",
            markdown_table(
                [{"curve": line.name, **point.__dict__} for line in lines for point in line.points]
            ),
            "",
        ]
    )


def _row(trial: FinishedTrial) -> dict[str, Any]:
    metrics = trial.metrics
    names = ("test_overall", "test_effect", "test_relevance", "test_fluency", "test_perplexity")
    others = ("unsteered_effect", "prompted_overall", "random_overall")
    return {
        "trial": trial.trial,
        "direction": _name(trial),
        "strength": metrics.get("best_strength"),
        **{name: metrics.get(name) for name in (*names, *others)},
    }


def _lines(trials: Sequence[FinishedTrial]) -> list[Line]:
    """A curve a direction; trials that differ in their strength alone make one together."""
    points: dict[str, dict[float, CurvePoint]] = {}
    chosen: dict[str, float | None] = {}
    for trial in trials:
        name = _name(trial)
        for point in read_curve(trial.folder / CURVE):
            points.setdefault(name, {}).setdefault(point.strength, point)
        chosen.setdefault(name, trial.metrics.get("best_strength"))
    return [
        Line(name, tuple(found[s] for s in sorted(found)), chosen[name])
        for name, found in points.items()
    ]


def _name(trial: FinishedTrial) -> str:
    config = {name: value for name, value in trial.config.items() if value is not None}
    parts = [str(config.get("method", ""))]
    if "layer" in config:
        parts.append(f"layer {config['layer']}")
    parts += [
        f"{name} {value}" if name in _NAMED else str(value)
        for name, value in config.items()
        if name not in ("method", "layer", "strength")
    ]
    return " ".join(part for part in parts if part)
