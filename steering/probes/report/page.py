"""The page of a trial or a sweep: one HTML file that needs neither a network nor JavaScript."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Finding", "Section", "Table", "interval_text", "number_text", "page"]

Said = Mapping[str, Any]
TEMPLATE = "page.html.j2"
CONTROL_NAMES = {
    "shuffled_labels": "trained on shuffled labels",
    "selectivity": "selectivity (real less control task)",
    "bag_of_words": "bag of words",
    "length": "length of the text alone",
    "metadata": "metadata alone",
    "raw_logistic": "raw activations, logistic regression",
    "random_latents": "random latents of like firing rate",
}


@dataclass(frozen=True)
class Finding:
    """A sentence at the top."""

    text: str
    warn: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of texts; columns whose head starts with `<` are words, the others numbers."""

    heads: Sequence[str]
    rows: Sequence[tuple[bool, Sequence[str]]]
    """Whether the row is the best, and its cells."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    note: str = ""
    table: Table | None = None
    picture: bytes | None = None
    width: int = 840
    """Of the picture, in pixels of the page."""
    latents: Sequence[Mapping[str, Any]] = field(default=())


def page(
    title: str, subtitle: str, findings: Sequence[Finding], sections: Sequence[Section]
) -> str:
    """The whole page; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    text: str = environment.get_template(TEMPLATE).render(
        title=title,
        subtitle=subtitle,
        findings=findings,
        sections=[_plain(section) for section in sections],
    )
    return text


def findings_of(said: Said) -> list[Finding]:
    """What a reader should know first: the number, and what speaks against it."""
    auroc, controls = said["test"]["metrics"]["auroc"], said["controls"]
    found = [Finding(f"Test AUROC {interval_text(auroc)} with {said['best']}.")]
    words = controls.get("bag_of_words", {}).get("value")
    if words is not None and auroc["estimate"] is not None and auroc["estimate"] <= words:
        found.append(
            Finding(f"A bag of words does as well: {words:.3f}. The text gives it away.", True)
        )
    if controls.get("shuffled_labels", {}).get("verdict") == "leak?":
        value = controls["shuffled_labels"]["value"]
        found.append(Finding(f"Shuffled labels give {value:.3f}, not 0.5: leak?", True))
    return found


def label_section(labels: Said) -> Section:
    """How often each label occurs."""
    rows = [
        (
            False,
            [
                label["name"],
                str(label["positives"]),
                str(label["positive_items"]),
                f"{label['share']:.1%}",
            ],
        )
        for label in labels["labels"]
    ]
    note = f"{labels['num_texts']} texts of {labels['num_items']} items, {labels['task']}."
    return Section("Labels", note, Table(["<label", "texts", "items", "share"], rows))


def controls_section(said: Said) -> Section | None:
    """Controls beside the number itself."""
    if not said["controls"]:
        return None
    rows = [(True, ["this probe", interval_text(said["test"]["metrics"]["auroc"]), ""])]
    for name, one in said["controls"].items():
        value = {"estimate": one.get("value"), "low": one.get("low"), "high": one.get("high")}
        remark = one.get("skipped") or one.get("verdict") or one.get("remark") or ""
        if one.get("expected"):
            low, high = one["expected"]["low"], one["expected"]["high"]
            remark += f"; expected {low:.3f} to {high:.3f}"
        rows.append((False, [CONTROL_NAMES.get(name, name), interval_text(value), remark]))
    note = "AUROC on the test rows of the first split, with the probe's own recipe."
    return Section("Controls and baselines", note, Table(["<what", "AUROC", "<remark"], rows))


def latent_sections(latents: Sequence[Said]) -> list[Section]:
    """Single latents with the texts where they are strongest."""
    if not latents:
        return []
    note = (
        "Ranked by how well the latent alone tells the label (AUROC of the training rows). Tokens "
        "are the darker the stronger it is there."
    )
    return [Section("Which latents", note, latents=latents)]


def number_text(value: float | None, digits: int = 3) -> str:
    """A dash for what is not known."""
    return "-" if value is None else f"{value:.{digits}f}"


def interval_text(interval: Said) -> str:
    """0.913 [0.870, 0.950], or without what is not known."""
    if interval["estimate"] is None:
        return "-"
    if interval.get("low") is None:
        return number_text(interval["estimate"])
    low, high = number_text(interval["low"]), number_text(interval["high"])
    return f"{number_text(interval['estimate'])} [{low}, {high}]"


def _plain(section: Section) -> dict[str, Any]:
    table, drawn = section.table, None
    if table is not None:
        drawn = {
            "heads": [{"name": h.removeprefix("<"), "text": h[0] == "<"} for h in table.heads],
            "rows": [{"best": best, "cells": list(cells)} for best, cells in table.rows],
        }
    return {
        "title": section.title,
        "note": section.note,
        "table": drawn,
        "picture": base64.b64encode(section.picture).decode() if section.picture else None,
        "width": section.width,
        "latents": list(section.latents),
    }
