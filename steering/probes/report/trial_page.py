"""The page of one trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steering.probes.report.levels import levels_section
from steering.probes.report.page import (
    Section,
    Table,
    controls_section,
    findings_of,
    interval_text,
    label_section,
    latent_sections,
    number_text,
    page,
)
from steering.probes.report.pictures import curves_png
from steering.probes.report.wrong_labels import noise_section

__all__ = ["trial_page"]

Said = Mapping[str, Any]


def trial_page(said: Said) -> str:
    """One trial, from its JSON."""
    config = said["about"]["config"]
    title = f"probe: {config.get('method', '')} on {said['best']}, {config['pooling']}"
    labels = said["test"]["labels"]
    picture = curves_png([(label["name"], label) for label in labels])
    sections = [
        label_section(said["labels"]),
        sources_section(said),
        Section("Test rows of the first split", table=_labels_table(said), picture=picture),
        levels_section(said),
        controls_section(said),
        noise_section({config["method"]: said}),
        *latent_sections(said["latents"]),
    ]
    subtitle = f"{said['about']['model']}; {said['test']['rows']} test rows of "
    subtitle += f"{said['test']['items']} items; intervals over items, 95%"
    return page(title, subtitle, findings_of(said), [s for s in sections if s is not None])


def sources_section(said: Said) -> Section:
    """Each source over the splits."""
    rows = []
    for one in said["sources"]:
        spread = one.get("test_auroc_over_splits", {})
        own = [one["source"], number_text(one["validation"]["auroc"])]
        own += [number_text(one["test"][name]) for name in ("auroc", "auprc", "macro_f1")]
        own += [f"{number_text(spread.get('low'))} to {number_text(spread.get('high'))}"]
        own += [number_text(one.get("l0"), 1), number_text(one.get("fvu"))]
        rows.append((one["source"] == said["best"], own))
    heads = ["<source", "validation AUROC", "test AUROC", "AUPRC", "macro F1"]
    heads += ["AUROC over splits", "L0", "FVU"]
    note = "Means over the splits; the best was chosen on validation. Over splits: Student's "
    note += "interval; they share their texts, so it is not one over other texts."
    return Section("Sources", note, Table(heads, rows))


def _labels_table(said: Said) -> Table:
    chosen = next(s["fits"][0]["chosen"] for s in said["sources"] if s["source"] == said["best"])
    rows = [
        (
            False,
            [
                label["name"],
                f"{label['positives']} of {label['rows']}",
                interval_text(label["auroc"]),
                interval_text(label["auprc"]),
                interval_text(label["f1"]),
                ", ".join(f"{name}={_short(value)}" for name, value in setting.items()),
            ],
        )
        for label, setting in zip(said["test"]["labels"], chosen, strict=True)
    ]
    return Table(["<label", "positives", "AUROC", "AUPRC", "F1", "<chosen on validation"], rows)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
