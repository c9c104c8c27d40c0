"""What one way of probing came to, as JSON that pages are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steering.probes.controls import over_seeds
from steering.probes.controls.seeds import MIN_SEEDS
from steering.probes.evaluation import number_json
from steering.probes.features import FeatureSpec
from steering.probes.method import FittedProbe
from steering.probes.noise.noise_steps import NoiseSteps
from steering.probes.noise.token_evaluation import NoiseModel
from steering.probes.profile import profile
from steering.probes.report.checks import controls_of
from steering.probes.report.levels import levels_of
from steering.probes.report.wrong_labels import noise_curves
from steering.probes.study import REPORTED, Fit, ProbeStudy, mean_of

__all__ = ["REPORT_FILE", "ReportWishes", "TrialReport", "write_trial_report"]

REPORT_FILE = "probe.json"


@dataclass(frozen=True)
class ReportWishes:
    """What is measured beside the number itself."""

    controls: bool = True
    token_noise: NoiseModel | None = None
    """What is declared of token labels, see `levels_of`."""


@dataclass(frozen=True)
class TrialReport:
    """Plain JSON values only."""

    about: Mapping[str, Any]
    """Configuration, model, and what is known of the SAEs."""
    labels: Mapping[str, Any]
    """The label profile."""
    best: str
    """The source that was chosen on validation."""
    sources: Sequence[Mapping[str, Any]]
    """Each source: means over splits, the spread between them, and each split's fit."""
    test: Mapping[str, Any]
    """The best source on the test rows of the first split, with intervals and curves."""
    controls: Mapping[str, Mapping[str, Any]]
    levels: Mapping[str, Any] | None = None
    """By text and by token, see `levels_of`; None for pooled features."""
    label_noise: Mapping[str, Any] | None = None
    """`curves` as `noise_curves`, or why there are none; None if not asked for."""
    latents: Sequence[Mapping[str, Any]] = ()
    """The best single latents of the best SAE."""

    @classmethod
    def of(
        cls,
        study: ProbeStudy,
        fits: Sequence[Fit],
        best: str,
        probe: FittedProbe,
        *,
        wishes: ReportWishes,
        about: Mapping[str, Any],
        raw: FeatureSpec | None = None,
        noise: NoiseSteps | None = None,
    ) -> TrialReport:
        """Measure what is missing.

        Args:
            probe: of the best source on the first split, loaded back.
            raw: see `controls_of`.
            noise: a finished sweep of label noise; None for none.
        """
        split_seed = next(fit.split_seed for fit in fits if fit.source == best)
        saes = about.get("saes", {})
        return cls(
            about=about,
            labels=profile(study.table.labelled).as_json(),
            best=best,
            sources=[
                _source(source, fits, saes.get(source, {})) for source in study.spec_by_source
            ],
            test=study.evaluate(probe, best, split_seed, "test").as_json(),
            controls=controls_of(study, best, split_seed, probe, raw) if wishes.controls else {},
            levels=levels_of(study, best, split_seed, probe, wishes.token_noise),
            label_noise=None if noise is None else _label_noise(noise),
        )

    def with_latents(self, latents: Sequence[Mapping[str, Any]]) -> TrialReport:
        """The same with single latents."""
        return replace(self, latents=latents)

    def control_metrics(self) -> dict[str, float]:
        """Those controls that are metrics of the job kind; nan where one was not measured."""
        values = {
            "shuffled_auroc": self.controls.get("shuffled_labels", {}).get("value"),
            "selectivity": self.controls.get("selectivity", {}).get("value"),
        }
        return {name: float("nan") if v is None else float(v) for name, v in values.items()}

    def to_json(self) -> dict[str, Any]:
        """All of it; None for what is not a number."""
        return _known(
            {
                "about": dict(self.about),
                "labels": dict(self.labels),
                "best": self.best,
                "sources": list(self.sources),
                "test": dict(self.test),
                "controls": {name: dict(said) for name, said in self.controls.items()},
                "levels": self.levels,
                "label_noise": self.label_noise,
                "latents": list(self.latents),
            }
        )


def write_trial_report(report: TrialReport, folder: Path) -> None:
    """Write the JSON, and a page of this trial alone."""
    from steering.probes.report.trial_page import trial_page

    folder.mkdir(parents=True, exist_ok=True)
    said = report.to_json()
    (folder / REPORT_FILE).write_text(json.dumps(said, indent=1, allow_nan=False) + "\n")
    (folder / "probe.html").write_text(trial_page(said))


def _known(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _known(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_known(value) for value in tree]
    return number_json(tree) if isinstance(tree, float) else tree


def _label_noise(noise: NoiseSteps) -> dict[str, Any]:
    if noise.skipped is not None:
        return {"skipped": noise.skipped}
    return {"curves": noise_curves(noise.points)}


def _source(source: str, fits: Sequence[Fit], about: Mapping[str, Any]) -> dict[str, Any]:
    own = [fit for fit in fits if fit.source == source]
    said: dict[str, Any] = {
        "source": source,
        **about,
        "validation": {n: number_json(mean_of(own, source, "validation", n)) for n in REPORTED},
        "test": {n: number_json(mean_of(own, source, "test", n)) for n in REPORTED},
        "fits": [fit.to_json() for fit in own],
    }
    if len(own) >= MIN_SEEDS:
        seeds = over_seeds([fit.test["auroc"] for fit in own])
        said["test_auroc_over_splits"] = {
            "value": number_json(seeds.mean),
            "low": number_json(seeds.low),
            "high": number_json(seeds.high),
        }
    return said
