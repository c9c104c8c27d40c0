"""A way of probing, fitted on several splits: sources, chosen on validation, tested once.

Shape suffixes: N = rows, L = labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.evaluation import Evaluation, evaluate, number_json
from steering.probes.features import FeatureSpec, FeatureTable
from steering.probes.imbalance import ImbalanceMode
from steering.probes.method import FittedProbe
from steering.probes.methods import parse_method
from steering.probes.parts import PartRows, Parts, fit_parts
from steering.probes.splits import split_labelled

__all__ = ["REPORTED", "Fit", "ProbeStudy", "Recipe", "best_source", "mean_of", "parts_of"]

REPORTED = ("auroc", "auprc", "macro_f1", "balanced_accuracy", "accuracy")
RESAMPLES = 1000

Array = np.ndarray[Any, Any]
Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Recipe:
    """What is done with the features of a source."""

    method: str
    parameters: Mapping[str, Any]
    imbalance: ImbalanceMode = "none"
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """One source on one split."""

    source: str
    split_seed: int
    probe: FittedProbe
    validation: Mapping[str, float]
    test: Mapping[str, float]

    @classmethod
    def of(cls, said: Mapping[str, Any], probe: FittedProbe) -> Fit:
        """From what `to_json` said, and the probe."""
        validation, test = (
            {name: float("nan") if value is None else value for name, value in said[part].items()}
            for part in ("validation", "test")
        )
        return cls(said["source"], said["split_seed"], probe, validation, test)

    def to_json(self) -> dict[str, Any]:
        """Without the probe itself."""
        return {
            "source": self.source,
            "split_seed": self.split_seed,
            "chosen": [dict(setting) for setting in self.probe.chosen],
            "thresholds": [number_json(float(value)) for value in self.probe.thresholds_L],
            "validation": {name: number_json(value) for name, value in self.validation.items()},
            "test": {name: number_json(value) for name, value in self.test.items()},
        }


class ProbeStudy:
    """Fits a recipe to any of its sources on any split."""

    def __init__(
        self,
        table: FeatureTable,
        spec_by_source: Mapping[str, FeatureSpec],
        recipe: Recipe,
        shares: tuple[float, float, float],
    ) -> None:
        self.table, self.spec_by_source, self.recipe = table, spec_by_source, recipe
        self._method = parse_method(recipe.method, recipe.parameters)
        self._shares = shares
        self._latest: tuple[tuple[str, int], Parts] | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """Labels, or classes."""
        return self.table.labelled.label_names

    def parts(self, source: str, split_seed: int) -> Parts:
        """Rows of a source, dealt by whole items; the latest are kept."""
        key = (source, split_seed)
        if self._latest is None or self._latest[0] != key:
            spec = self.spec_by_source[source]
            self._latest = (key, parts_of(self.table, spec, self._shares, split_seed))
        return self._latest[1]

    def parts_of_spec(self, spec: FeatureSpec, split_seed: int) -> Parts:
        """Rows of other features of the same texts, dealt in the same way."""
        return parts_of(self.table, spec, self._shares, split_seed)

    def rows(self, source: str, split_seed: int) -> dict[str, Array]:
        """Row numbers of each part."""
        return _rows_of(self.table, self.spec_by_source[source], self._shares, split_seed)

    def row_texts(self, source: str, split_seed: int) -> tuple[list[str], list[str], list[str]]:
        """What each row of train, validation and test says: a text, or a token's characters."""
        table, spec = self.table, self.spec_by_source[source]
        rows, text_of = self.rows(source, split_seed), self.table.text_of(spec)
        texts = table.labelled.texts

        def said(row: int) -> str:
            text = texts[int(text_of[row])]
            if not spec.is_by_token or table.tokens is None:
                return text
            start, end = table.tokens.char_S2[row]
            return text[int(start) : int(end)]

        train, validation, test = (
            [said(int(row)) for row in rows[part]] for part in ("train", "validation", "test")
        )
        return train, validation, test

    def fit(self, source: str, split_seed: int) -> Fit:
        """Fit, choose on validation, test. Raises BadSteeringInput for labels of one class."""
        parts = self.parts(source, split_seed)
        probe = fit_parts(
            self._method,
            None,
            parts,
            imbalance=self.recipe.imbalance,
            seed=self.recipe.seed,
            label_names=self.label_names,
        )
        validation = self.evaluate(probe, source, split_seed, "validation", resamples=0)
        test = self.evaluate(probe, source, split_seed, "test", resamples=0)
        return Fit(source, split_seed, probe, _values(validation), _values(test))

    def evaluate(
        self,
        probe: FittedProbe,
        source: str,
        split_seed: int,
        part: Part,
        *,
        resamples: int = RESAMPLES,
    ) -> Evaluation:
        """A part's metrics with intervals over items.

        Probes on tokens of texts without labelled spans are measured on texts, which their largest
        token score stands for: what is known of single tokens is not true of each.
        """
        rows: PartRows = getattr(self.parts(source, split_seed), part)
        spec = self.spec_by_source[source]
        # Classes choose their own settings: only calibrated scores can be held against each other.
        score = probe.calibrated if self._task(spec) == "multiclass" else probe.scores
        score_NL, y_NL, items = score(rows.x), rows.y_NL, rows.items
        if spec.is_by_token and self.table.labelled.spans is None:
            texts = self._texts_of(spec, split_seed, part)
            score_NL, y_NL, items = _largest_by_text(score_NL, y_NL, items, texts)
        return evaluate(
            score_NL,
            y_NL,
            items.tolist(),
            task=self._task(spec),
            thresholds=probe.thresholds_L,
            label_names=self.label_names,
            resamples=resamples,
        )

    def _task(self, spec: FeatureSpec) -> Literal["binary", "multiclass", "multilabel"]:
        task = self.table.labelled.task
        is_one_class = bool((self.table.y(spec).sum(axis=1) == 1).all())
        return "multilabel" if task == "multiclass" and not is_one_class else task

    def _texts_of(self, spec: FeatureSpec, split_seed: int, part: Part) -> Array:
        split = split_labelled(self.table.labelled, self._shares, split_seed)
        rows = self.table.rows_of(spec, split.rows[part])
        return self.table.text_of(spec)[rows]


def parts_of(
    table: FeatureTable,
    spec: FeatureSpec,
    shares: tuple[float, float, float],
    split_seed: int,
) -> Parts:
    """Rows of features, dealt by whole items. Raises BadSteeringInput for a leak."""
    rows = _rows_of(table, spec, shares, split_seed)
    parts = Parts.of(table.matrix(spec), table.y(spec), table.items(spec), rows)
    if shared := sorted(parts.shared_items):
        raise BadSteeringInput(
            f"{len(shared)} items are in training and in another part ({shared[0]!r}, ...); "
            "split by item"
        )
    return parts


def _rows_of(
    table: FeatureTable, spec: FeatureSpec, shares: tuple[float, float, float], split_seed: int
) -> dict[str, Array]:
    split = split_labelled(table.labelled, shares, split_seed)
    return {name: table.rows_of(spec, texts) for name, texts in split.rows.items()}


def best_source(fits: Sequence[Fit], metric: str = "auroc") -> str:
    """The source with the best mean of a metric on validation; of equals the first."""
    sources = dict.fromkeys(fit.source for fit in fits)
    means = {source: mean_of(fits, source, "validation", metric) for source in sources}
    return max(means, key=lambda source: means[source])


def mean_of(fits: Sequence[Fit], source: str, part: Part, metric: str) -> float:
    """A metric's mean over the splits of a source."""
    own = [fit for fit in fits if fit.source == source]
    return float(np.mean([getattr(fit, part)[metric] for fit in own]))


def _values(evaluation: Evaluation) -> dict[str, float]:
    return {name: evaluation.value(name) for name in REPORTED}


def _largest_by_text(
    score_NL: Array, y_NL: Array, items: Array, texts: Array
) -> tuple[Array, Array, Array]:
    _, first = np.unique(texts, return_index=True)
    largest = np.maximum.reduceat(score_NL, first, axis=0)
    return largest, y_NL[first], items[first]
