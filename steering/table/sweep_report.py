"""What all trials of a sweep found, in one page. No numpy, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steering.table.report import TABLE_MD

__all__ = ["write_sweep_report"]

Trial = tuple[str, Mapping[str, Any], Mapping[str, float], Path]
"""Name, configuration, metrics, and the artefact's folder."""

SHOWN = (
    "strength",
    "m2_net",
    "table_m2_net_steer",
    "table_m2_net_prompt",
    "table_m2_net_both",
    "table_m1_floor",
    "m3_towards",
    "perplexity_ratio",
)


def write_sweep_report(trials: Sequence[Trial], folder: Path) -> list[Path]:
    """A line a trial, the best by m2_net first, and that one's whole tables.

    m2_net is of the prompts that strengths are chosen on, so that the best trial's own table is of
    prompts that nothing was chosen on.
    """
    ordered = sorted(trials, key=lambda trial: -trial[2].get("m2_net", float("-inf")))
    searched = [
        name
        for name in dict.fromkeys(name for trial in ordered for name in trial[1])
        if name not in SHOWN and len({str(trial[1].get(name)) for trial in ordered}) > 1
    ]
    heads = ["trial", *searched, *SHOWN]
    lines = [heads, ["---"] * len(heads)]
    for name, config, metrics, _ in ordered:
        numbers = [_number(metrics.get(one)) for one in SHOWN]
        lines.append([name, *(str(config.get(one, "")) for one in searched), *numbers])
    parts = [
        "# Steering against prompting",
        f"{len(ordered)} trials, the best first by m2_net, which is of other prompts than the "
        "tables (table_...).",
        "\n".join("| " + " | ".join(line) + " |" for line in lines),
    ]
    best = ordered[0]
    page = best[3] / "report" / TABLE_MD
    if page.is_file():
        parts += [f"# Trial {best[0]}", page.read_text(encoding="utf-8")]
    path = folder / "steering_table.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [path]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
