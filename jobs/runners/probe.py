"""A trial of `probe`: one way of probing, on every source it is asked for, over several splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jobs.kind import TrialContext, TrialFailed
from jobs.probe import NEEDS, SAES, Probe, ProbeParameters, ProbeSetup
from jobs.runners.in_process import InProcessRunner
from jobs.runners.language_models import model_of
from jobs.splits import SplitConfig
from steering.errors import BadSteeringInput
from steering.probes.features.spec import TOKEN_POOLINGS, FeaturePooling

if TYPE_CHECKING:
    from sae.language_model import LanguageModel
    from sae.trained_sae import TrainedSae
    from steering.probes.data import LabelledTexts
    from steering.probes.features import FeatureSpec, FeatureTable
    from steering.probes.method import FittedProbe
    from steering.probes.noise.noise_steps import NoiseSteps
    from steering.probes.study import Fit, ProbeStudy, Recipe

FITS, NOISE, PROBE = "fits.json", "noise.json", "probe"
POOLINGS: tuple[FeaturePooling, ...] = get_args(FeaturePooling)


class ProbeRunner(InProcessRunner):
    """Sources times splits; see `InProcessRunner`. A step fits one source on one split."""

    artefact_kind = "probe"

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._setup = ProbeSetup.model_validate(context.setup)
        self._config, self._recipe = recipe_of(context.config, self._setup)
        self._study: ProbeStudy | None = None
        self._saes: Mapping[str, TrainedSae] = {}
        self._raw: Mapping[str, FeatureSpec] = {}
        self._fits: list[Fit] = []
        self._noise: NoiseSteps | None = None

    def open(self) -> None:
        from steering.probes.evaluation import OBJECTIVES, check_objective
        from steering.probes.study import ProbeStudy

        setup = self._setup
        labelled = labelled_texts(setup.data.model_dump_json())
        # What cannot be dealt out is said before hours of features.
        check_splits(setup.data.model_dump_json(), setup.split.model_dump_json(), setup.seeds)
        if self.context.metric.removeprefix("test_") in OBJECTIVES:
            objective = self.context.metric.removeprefix("test_")
            check_objective(objective, labelled.y_NL, labelled.task)
        lm = model_of(setup.model.model_dump_json(), self.context.device)
        self._saes = self._load_saes() if setup.saes else {}
        table, spec_by_source = self._features(lm, labelled)
        self._study = ProbeStudy(table, spec_by_source, self._recipe, setup.split.shares)

    @property
    def units_done(self) -> int:
        """Splits on which every source was fitted; the last is done with the noise sweep."""
        splits = len(self._fits) // len(self._the_study.spec_by_source)
        noise = self._noise_steps if splits == self._setup.seeds else None
        return splits - 1 if noise is not None and not noise.is_done else splits

    def step(self) -> None:
        sources = list(self._the_study.spec_by_source)
        split, place = divmod(len(self._fits), len(sources))
        if split < self._setup.seeds:
            seed = self._setup.split.seed + split
            self._fits.append(self._the_study.fit(sources[place], seed))
            return
        noise = self._noise_steps
        assert noise is not None, "all splits are fitted"
        noise.step()

    def measure(self) -> Mapping[str, float]:
        from steering.probes.study import REPORTED, mean_of

        best = self._best
        return {name: mean_of(self._fits, best, "validation", name) for name in REPORTED}

    def write_state(self, folder: Path) -> None:
        for number, fit in enumerate(self._fits):
            fit.probe.save(folder / f"{PROBE}-{number:04d}")
        (folder / FITS).write_text(json.dumps([fit.to_json() for fit in self._fits]) + "\n")
        if self._noise is not None:
            (folder / NOISE).write_text(json.dumps(self._noise.to_json()) + "\n")

    def read_state(self, folder: Path) -> None:
        from steering.probes.method import FittedProbe
        from steering.probes.study import Fit

        said = json.loads((folder / FITS).read_text())
        self._fits = [
            Fit.of(one, FittedProbe.load(folder / f"{PROBE}-{number:04d}"))
            for number, one in enumerate(said)
        ]
        if (folder / NOISE).exists() and (noise := self._noise_steps) is not None:
            noise.read(json.loads((folder / NOISE).read_text()))

    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """The best source's probe, loaded back; tests, controls, and what single latents do."""
        import numpy as np

        from steering.probes.method import FittedProbe
        from steering.probes.report.trial import ReportWishes, TrialReport, write_trial_report
        from steering.probes.study import mean_of

        study, best = self._the_study, self._best
        first = next(fit for fit in self._fits if fit.source == best)
        first.probe.save(folder / PROBE)
        loaded = FittedProbe.load(folder / PROBE)
        test = study.parts(best, first.split_seed).test
        if not np.allclose(loaded.scores(test.x), first.probe.scores(test.x)):
            raise TrialFailed("export differs from what was fitted: other scores when loaded")
        report = TrialReport.of(
            study,
            self._fits,
            best,
            loaded,
            wishes=ReportWishes(self._setup.controls, self._setup.token_noise),
            about=self._about(),
            raw=self._raw.get(best),
            noise=self._noise_steps,
        )
        if best in self._saes and self._setup.latents.top:
            report = report.with_latents(self._latents(best, first.split_seed, loaded))
        write_trial_report(report, folder / "report")
        finals = {
            f"test_{name}": mean_of(self._fits, best, "test", name)
            for name in ("auroc", "auprc", "macro_f1")
        }
        record = report.to_json()
        return {**self.measure(), **finals, **report.control_metrics()}, record

    def close(self) -> None:
        self._study = self._noise = None

    @property
    def _the_study(self) -> ProbeStudy:
        assert self._study is not None
        return self._study

    @property
    def _best(self) -> str:
        from steering.probes.study import best_source

        return best_source(self._fits)

    @property
    def _noise_steps(self) -> NoiseSteps | None:
        """Of the best source, once all are fitted on all splits; None if not asked for."""
        from steering.probes.noise.noise_steps import NoiseSteps

        spec = self._setup.label_noise
        if self._noise is None and spec is not None:
            seed = self._setup.split.seed
            self._noise = NoiseSteps(self._the_study, self._best, seed, spec)
        return self._noise

    def _load_saes(self) -> dict[str, TrainedSae]:
        from sae.trained_sae import SaeSpec, load_sae

        named = self._setup.saes
        if named == NEEDS:
            found = {
                one.id: SaeSpec(folder=str(one.folder))
                for one in self.context.inputs
                if one.kind == "sae"
            }
            if not found:
                raise BadSteeringInput(
                    "saes: needs takes the SAEs of other sweeps, and this one needs none of kind "
                    "sae; add needs: [{sweep: NAME, select: {kind: sae, ...}}], or name folders"
                )
        else:
            found = dict(named)
        return {name: load_sae(spec, label=name) for name, spec in found.items()}

    def _features(
        self, lm: LanguageModel, labelled: LabelledTexts
    ) -> tuple[FeatureTable, Mapping[str, FeatureSpec]]:
        """Of all sources that trials of the sweep may ask for: one pass of the model serves all."""
        from sae.model_files import cache_dir
        from steering.probes.features import ExtractSettings, FeatureSpec, extract

        setup, pooling = self._setup, self._config.pooling
        is_by_token = pooling in TOKEN_POOLINGS
        poolings = [pooling] if is_by_token else [p for p in POOLINGS if p not in TOKEN_POOLINGS]
        hooks = list(dict.fromkeys([*setup.hooks, *(sae.hook for sae in self._saes.values())]))
        wanted = [FeatureSpec(hook=hook, pooling=p) for hook in hooks if hook for p in poolings]
        wanted += [FeatureSpec(sae=name, pooling=p) for name in self._saes for p in poolings]
        settings = ExtractSettings(
            max_tokens=setup.read.max_tokens,
            batch_tokens=setup.read.batch_tokens,
            kept_tokens=setup.read.kept_tokens,
        )
        cache = cache_dir() / "probe-features"
        table = extract(lm, self._saes, labelled, wanted, cache, settings=settings)
        if self._config.source != SAES:
            source = self._config.source
            return table, {source: FeatureSpec(hook=source, pooling=pooling)}
        self._raw = {
            name: FeatureSpec(hook=sae.hook, pooling=pooling)
            for name, sae in self._saes.items()
            if sae.hook is not None
        }
        return table, {name: FeatureSpec(sae=name, pooling=pooling) for name in self._saes}

    def _latents(self, source: str, split_seed: int, probe: FittedProbe) -> list[dict[str, Any]]:
        from steering.probes.report.latents import LatentWishes, latents_of

        wanted = self._setup.latents
        lm = model_of(self._setup.model.model_dump_json(), self.context.device)
        wishes = LatentWishes(
            top=wanted.top,
            contexts=wanted.contexts,
            causal_texts=wanted.causal_texts if wanted.causal else 0,
            question=wanted.question,
            max_tokens=self._setup.read.max_tokens,
        )
        return latents_of(
            self._the_study, source, split_seed, probe, lm, self._saes[source], wishes
        )

    def _about(self) -> dict[str, Any]:
        """What the report says of the sources: an SAE's own numbers."""
        known = {one.id: dict(one.record.get("metrics", {})) for one in self.context.inputs}
        return {
            "config": {
                "method": self._recipe.method,
                "parameters": dict(self._recipe.parameters),
                **self._config.model_dump(mode="json"),
            },
            "pooling": self._config.pooling,
            "model": self._setup.model.label,
            "saes": {
                name: {
                    "d_sae": sae.d_sae,
                    "architecture": sae.architecture,
                    "hook": sae.hook,
                    **{k: known.get(name, {}).get(k) for k in ("l0", "fvu", "ce_recovered")},
                }
                for name, sae in self._saes.items()
            },
        }


def recipe_of(config: Mapping[str, Any], setup: ProbeSetup) -> tuple[ProbeParameters, Recipe]:
    """A trial's configuration, defaults filled in, and what of it is the method's."""
    from steering.probes.study import Recipe

    method = str(config.get("method", "logistic_l2"))
    full = Probe().parameters()[method].model_validate({"method": method, **config})
    values = full.model_dump()
    common = {name: values.pop(name) for name in ProbeParameters.model_fields}
    values.pop("method")
    common["source"] = common["source"] or setup.sources[0]
    parameters = ProbeParameters.model_validate(common)
    recipe = Recipe(
        method, values, parameters.imbalance, parameters.seed, parameters.negatives_per_positive
    )
    return parameters, recipe


@lru_cache(maxsize=1)
def labelled_texts(spec_json: str) -> LabelledTexts:
    """Once a process."""
    from steering.probes.data import LabelledSpec, read_labelled

    return read_labelled(LabelledSpec.model_validate_json(spec_json))


@lru_cache(maxsize=1)
def check_splits(data_json: str, split_json: str, seeds: int) -> None:
    """Deal the texts out as trials will, once a process. Raises BadSteeringInput."""
    from steering.probes.splits import split_labelled

    labelled, split = labelled_texts(data_json), SplitConfig.model_validate_json(split_json)
    for seed in range(split.seed, split.seed + seeds):
        split_labelled(labelled, split.shares, seed)
