"""The page of a sweep of probes: which way of probing, which layer, which SAE, beside baselines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from steering.errors import BadSteeringInput
from steering.probes.controls.quiver import Arrow, quiver_gain
from steering.probes.report.levels import levels_section
from steering.probes.report.page import (
    Finding,
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
from steering.probes.report.pictures import curves_png, layers_png, quality_png
from steering.probes.report.trial import REPORT_FILE
from steering.probes.report.wrong_labels import noise_rows, noise_section

__all__ = ["write_sweep_report"]

Said = Mapping[str, Any]
CURVES = 4
NOISE_LINES = 6
OVER_SPLITS = "Student's interval over splits of the same texts, not over other texts"


class FinishedProbe(Protocol):
    """What is known of a finished trial."""

    @property
    def trial(self) -> str:
        """Its name."""

    @property
    def folder(self) -> Path:
        """Its artefact's files."""


def write_sweep_report(trials: Sequence[FinishedProbe], folder: Path) -> Sequence[Path]:
    """Write probes.html, probes.csv, saes.csv and label_noise.csv; the page first.

    The last two only where there is something for them. Raises OSError.
    """
    said = {
        one.trial: json.loads((one.folder / "report" / REPORT_FILE).read_text()) for one in trials
    }
    ranked = sorted(said, key=lambda trial: -_validation(said[trial]))
    best = said[ranked[0]]
    quality = _sae_rows(said)
    noise = list(noise_rows({trial: said[trial] for trial in ranked}))
    files = {
        "probes.html": _page(said, ranked, best, quality),
        "probes.csv": _csv(_trial_rows(said, ranked)),
        **({"saes.csv": _csv(quality)} if quality else {}),
        **({"label_noise.csv": _csv(noise)} if noise else {}),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def _page(said: Mapping[str, Said], ranked: Sequence[str], best: Said, quality: list[Any]) -> str:
    sections = [
        _table_section(said, ranked),
        Section(
            "Curves",
            "The best of each source, test rows of the first split; dotted: chance.",
            picture=curves_png(_curves(said, ranked)),
        ),
        _layer_section(said),
        levels_section(best),
        controls_section(best),
        noise_section({_way(trial, said[trial]): said[trial] for trial in ranked[:NOISE_LINES]}),
        *_quality_sections(said, quality),
        label_section(best["labels"]),
        *latent_sections(_latents(said, ranked)),
    ]
    findings = [*findings_of(best), *_quiver(said)]
    count = len(said)
    subtitle = f"{best['about']['model']}; {count} ways of probing; chosen on validation, "
    subtitle += "means over splits; intervals over items if nothing else is said, 95%"
    title = f"Probes: {', '.join(label['name'] for label in best['labels']['labels'][:4])}"
    return page(title, subtitle, findings, [s for s in sections if s is not None])


def _validation(one: Said) -> float:
    value = _best_source(one)["validation"]["auroc"]
    return -1.0 if value is None else float(value)


def _best_source(one: Said) -> Said:
    found: Said = next(s for s in one["sources"] if s["source"] == one["best"])
    return found


def _trial_rows(said: Mapping[str, Said], ranked: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for trial in ranked:
        one, source = said[trial], _best_source(said[trial])
        config, spread = one["about"]["config"], source.get("test_auroc_over_splits", {})
        rows.append(
            {
                "trial": trial,
                "method": config["method"],
                "source": one["best"],
                "pooling": config["pooling"],
                "imbalance": config["imbalance"],
                "validation_auroc": source["validation"]["auroc"],
                "test_auroc": source["test"]["auroc"],
                "low_over_splits": spread.get("low"),
                "high_over_splits": spread.get("high"),
                "test_auprc": source["test"]["auprc"],
                "test_macro_f1": source["test"]["macro_f1"],
                "shuffled_auroc": one["controls"].get("shuffled_labels", {}).get("value"),
                "selectivity": one["controls"].get("selectivity", {}).get("value"),
            }
        )
    return rows


def _table_section(said: Mapping[str, Said], ranked: Sequence[str]) -> Section:
    rows = []
    for place, row in enumerate(_trial_rows(said, ranked)):
        words = [row[n] for n in ("trial", "method", "source", "pooling", "imbalance")]
        names = ("validation_auroc", "test_auroc", "test_auprc", "test_macro_f1")
        numbers = [number_text(row[n]) for n in names]
        controls = [number_text(row[n]) for n in ("shuffled_auroc", "selectivity")]
        rows.append((place == 0, [*words, *numbers, *controls]))
    heads = ["<trial", "<method", "<source", "<pooling", "<imbalance", "validation AUROC"]
    heads += ["test AUROC", "test AUPRC", "test F1", "shuffled", "selectivity"]
    note = "Best on validation first. Shuffled labels should give 0.5. Selectivity: only of probes "
    note += "whose test rows have types (of token) that training had too."
    return Section("Ways of probing", note, Table(heads, rows))


def _way(trial: str, one: Said) -> str:
    config = one["about"]["config"]
    source = "SAE" if one["best"] in one["about"]["saes"] else one["best"]
    return f"{trial}: {config['method']}, {source}, {config['pooling']}"


def _curves(said: Mapping[str, Said], ranked: Sequence[str]) -> list[tuple[str, Said]]:
    lines: dict[str, tuple[str, Said]] = {}
    for trial in ranked:
        one = said[trial]
        source = "SAE" if one["best"] in one["about"]["saes"] else one["best"]
        label = one["test"]["labels"][0]
        name = f"{source}, {one['about']['config']['method']}: {label['name']}"
        lines.setdefault(source, (name, label))
    return list(lines.values())[:CURVES]


def _layer_section(said: Mapping[str, Said]) -> Section | None:
    from sae.hooks import layer_of

    lines: dict[str, dict[int, tuple[int, float, float, float]]] = {}
    for one in said.values():
        config = one["about"]["config"]
        for source in one["sources"]:
            hook = one["about"]["saes"].get(source["source"], {}).get("hook") or source["source"]
            layer, value = layer_of(hook), source["test"]["auroc"]
            if layer is None or value is None:
                continue
            kind = "SAE" if source["source"] in one["about"]["saes"] else "activations"
            spread = source.get("test_auroc_over_splits", {})
            low, high = spread.get("low"), spread.get("high")
            point = (layer, value, value if low is None else low, value if high is None else high)
            line = lines.setdefault(f"{kind}, {config['method']}, {config['pooling']}", {})
            if layer not in line or line[layer][1] < value:
                line[layer] = point
    several = {name: list(line.values()) for name, line in lines.items() if len(line) > 1}
    if not several:
        return None
    note = f"Shaded: {OVER_SPLITS}."
    return Section("Layers", note, picture=layers_png(several), width=420)


def _sae_rows(said: Mapping[str, Said]) -> list[dict[str, Any]]:
    """Each SAE with its best probe, in the order of their validation AUROC."""
    found: dict[str, dict[str, Any]] = {}
    for one in said.values():
        for source in one["sources"]:
            about = one["about"]["saes"].get(source["source"])
            validation = source["validation"]["auroc"]
            if about is None or validation is None:
                continue
            old = found.get(source["source"])
            if old is not None and old["validation_auroc"] >= validation:
                continue
            spread = source.get("test_auroc_over_splits", {})
            found[source["source"]] = {
                "sae": source["source"],
                "d_sae": about.get("d_sae"),
                "architecture": about.get("architecture"),
                "l0": about.get("l0"),
                "fvu": about.get("fvu"),
                "validation_auroc": validation,
                "auroc": source["test"]["auroc"],
                "low_over_splits": spread.get("low"),
                "high_over_splits": spread.get("high"),
                "method": one["about"]["config"]["method"],
            }
    return sorted(found.values(), key=lambda row: -row["validation_auroc"])


def _quality_sections(said: Mapping[str, Said], rows: Sequence[Said]) -> list[Section]:
    """Which SAE is best for use, beside how well it reconstructs."""
    if not rows:
        return []
    raw = [
        one["controls"]["raw_logistic"]["value"]
        for one in said.values()
        if one["controls"].get("raw_logistic", {}).get("value") is not None
    ]
    table = [
        (
            place == 0,
            [
                row["sae"],
                str(row["architecture"]),
                str(row["d_sae"]),
                number_text(row["l0"], 1),
                number_text(row["fvu"]),
                number_text(row["validation_auroc"]),
                interval_text(
                    {
                        "estimate": row["auroc"],
                        "low": row["low_over_splits"],
                        "high": row["high_over_splits"],
                    }
                ),
                row["method"],
            ],
        )
        for place, row in enumerate(rows)
    ]
    heads = ["<SAE", "<architecture", "d_sae", "L0", "FVU", "validation AUROC", "test AUROC"]
    sections = [
        Section(
            "SAEs by what they are good for",
            "Each SAE with its best probe. The best reconstruction need not be the best to probe. "
            f"In brackets: {OVER_SPLITS}.",
            Table([*heads, "<method"], table),
        )
    ]
    for over in ("l0", "fvu"):
        known = [row for row in rows if row.get(over) is not None and row["auroc"] is not None]
        if len(known) > 1:
            picture = quality_png(known, over, max(raw) if raw else None)
            sections.append(Section(f"AUROC over {over.upper()}", picture=picture, width=420))
    return sections


def _quiver(said: Mapping[str, Said]) -> list[Finding]:
    """The gain of having SAE probes to choose from (Kantamneni et al. 2025)."""
    arrows = [
        Arrow(
            problem="the sweep's texts",
            name=f"{trial} {fit['source']}",
            is_sae=fit["source"] in one["about"]["saes"],
            validation_auroc=fit["validation"]["auroc"],
            test_auroc=fit["test"]["auroc"],
            split=str(fit["split_seed"]),
        )
        for trial, one in said.items()
        for source in one["sources"]
        for fit in source["fits"]
        if fit["validation"]["auroc"] is not None
    ]
    if not any(arrow.is_sae for arrow in arrows):
        return []
    try:
        found = quiver_gain(arrows)
    except BadSteeringInput:
        return [Finding("No probe of raw activations is here to compare the SAEs' with.", True)]
    gains = found.gains.values()
    text = f"Having SAE probes to choose from changes test AUROC by {found.gain.estimate:+.3f}"
    if len(gains) > 1:
        text += f", the mean of {len(gains)} splits ({min(gains):+.3f} to {max(gains):+.3f}; "
        text += "of the same texts, so this is no confidence interval)"
    return [Finding(f"{text}; on {found.sae_share:.0%} of the splits one was chosen.")]


def _latents(said: Mapping[str, Said], ranked: Sequence[str]) -> Sequence[Said]:
    return next((said[trial]["latents"] for trial in ranked if said[trial]["latents"]), ())


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
