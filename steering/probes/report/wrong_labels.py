"""What wrong training labels do to a probe, as JSON, as a table and a picture, and as CSV rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from steering.probes.controls import over_seeds
from steering.probes.controls.seeds import MIN_SEEDS
from steering.probes.evaluation import number_json
from steering.probes.noise.label_flips import NoisePoint
from steering.probes.report.page import Section, Table, interval_text
from steering.probes.report.pictures import noise_png

__all__ = ["noise_curves", "noise_rows", "noise_section"]

Said = Mapping[str, Any]
NO_FLIP = "none"
FLIP_NAMES = {
    "symmetric": "both ways",
    "positive_to_negative": "positives missed",
    "negative_to_positive": "false positives",
}
NOTE = (
    "Test AUROC against the labels as given, of probes whose training and validation labels were "
    "flipped, whole items at a time; the first split."
)


def noise_curves(points: Sequence[NoisePoint]) -> list[dict[str, Any]]:
    """AUROC at each rate and kind of flip, over seeds. Rate 0 stands first, with `flip` none."""
    groups: dict[tuple[str, float], list[NoisePoint]] = {}
    for point in points:
        key = (NO_FLIP if point.rate == 0 else point.flip, point.rate)
        groups.setdefault(key, []).append(point)
    return [_summary(flip, rate, group) for (flip, rate), group in groups.items()]


def _summary(flip: str, rate: float, points: Sequence[NoisePoint]) -> dict[str, Any]:
    known = [point.test_auroc for point in points if point.test_auroc == point.test_auroc]
    out: dict[str, Any] = {
        "flip": flip,
        "rate": rate,
        "seeds": len(known),
        "auroc": number_json(float(np.mean(known))) if known else None,
        "low": None,
        "high": None,
        "flipped_share": float(np.mean([point.flipped_share for point in points])),
    }
    if len(known) >= MIN_SEEDS:
        summary = over_seeds(known)
        out |= {"low": summary.low, "high": summary.high}
    return out


def noise_section(said_by_name: Mapping[str, Said]) -> Section | None:
    """Table and picture of one probe, or of several.

    Args:
        said_by_name: what to call each -> its report as JSON.
    """
    curves = {
        name: said["label_noise"]["curves"]
        for name, said in said_by_name.items()
        if said.get("label_noise") and said["label_noise"].get("curves")
    }
    skipped = [
        f"{name}: {said['label_noise']['skipped']}"
        for name, said in said_by_name.items()
        if said.get("label_noise") and said["label_noise"].get("skipped")
    ]
    if not curves and not skipped:
        return None
    title, note = "Wrong labels", " ".join([NOTE, *skipped])
    if not curves:
        return Section(title, note)
    lines = {
        FLIP_NAMES[flip]: {name: _line(points, flip) for name, points in curves.items()}
        for flip in _flips(curves)
    }
    return Section(title, note, _table(curves), noise_png(lines), width=min(840, 420 * len(lines)))


def noise_rows(said: Mapping[str, Said]) -> Iterator[dict[str, Any]]:
    """A row a trial, kind of flip and rate."""
    for trial, one in said.items():
        for point in (one.get("label_noise") or {}).get("curves", ()):
            config = one["about"]["config"]
            yield {
                "trial": trial,
                "method": config["method"],
                "source": one["best"],
                "pooling": config["pooling"],
                **{name: point[name] for name in ("flip", "rate", "flipped_share", "seeds")},
                "test_auroc": point["auroc"],
                "low": point["low"],
                "high": point["high"],
            }


def _flips(curves: Mapping[str, Sequence[Said]]) -> list[str]:
    return list(dict.fromkeys(p["flip"] for c in curves.values() for p in c if p["rate"] > 0))


def _line(points: Sequence[Said], flip: str) -> list[Said]:
    return [point for point in points if point["flip"] in (flip, NO_FLIP)]


def _table(curves: Mapping[str, Sequence[Said]]) -> Table:
    rates = sorted({point["rate"] for points in curves.values() for point in points})
    rows = []
    for name, points in curves.items():
        for flip in _flips(curves):
            by_rate = {point["rate"]: point for point in _line(points, flip)}
            cells = [_cell(by_rate.get(rate)) for rate in rates]
            rows.append((False, [name, FLIP_NAMES[flip], *cells]))
    return Table(["<probe", "<labels flipped", *(f"{rate:.0%}" for rate in rates)], rows)


def _cell(point: Said | None) -> str:
    if point is None:
        return "-"
    return interval_text({"estimate": point["auroc"], "low": point["low"], "high": point["high"]})
