"""A way of probing, fitted on several splits: sources, chosen on validation, tested once.

Shape suffixes: N = rows, L = labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.evaluation import Evaluation, evaluate, number_json
from steering.probes.features import FeatureSpec, FeatureTable
from steering.probes.imbalance import ImbalanceMode, best_f1_threshold
from steering.probes.logistic import calibration
from steering.probes.matrices import bags_of
from steering.probes.method import FittedProbe
from steering.probes.methods import parse_method
from steering.probes.noise.subsampling import subsample_negatives
from steering.probes.parts import Judge, PartRows, Parts, fit_parts, macro_auroc
from steering.probes.splits import split_labelled

__all__ = ["REPORTED", "Fit", "ProbeStudy", "Recipe", "best_source", "mean_of", "parts_of"]

REPORTED = ("auroc", "auprc", "macro_f1", "balanced_accuracy", "accuracy")
RESAMPLES = 1000

Array = np.ndarray[Any, Any]
Part = Literal["validation", "test"]
Texts = tuple[list[str], list[str], list[str]]
"""Of train, validation and test."""


@dataclass(frozen=True)
class Recipe:
    """What is done with the features of a source."""

    method: str
    parameters: Mapping[str, Any]
    imbalance: ImbalanceMode = "none"
    seed: int = 0
    negatives_per_positive: float | None = None
    """So many training rows without any label for each with one; None for all."""


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
            self._latest = (key, self.parts_of_spec(spec, split_seed))
        return self._latest[1]

    def parts_of_spec(self, spec: FeatureSpec, split_seed: int) -> Parts:
        """Rows of other features of the same texts, dealt in the same way."""
        parts = parts_of(self.table, spec, self._shares, split_seed)
        if self.recipe.negatives_per_positive is None:
            return parts
        train = parts.train
        kept = self._kept(train.y_NL, split_seed)
        thinned = PartRows(train.x[kept], train.y_NL[kept], train.items[kept])
        return replace(parts, train=thinned)

    def rows(self, source: str, split_seed: int) -> dict[str, Array]:
        """Row numbers of each part."""
        spec = self.spec_by_source[source]
        rows = _rows_of(self.table, spec, self._shares, split_seed)
        if self.recipe.negatives_per_positive is None:
            return rows
        train = rows["train"]
        y_NL, _ = _labels_of(self.table, spec)
        return {**rows, "train": train[self._kept(y_NL[train], split_seed)]}

    def row_texts(self, source: str, split_seed: int) -> Texts:
        """What each row of train, validation and test says: a text, or a token's characters."""
        table, spec = self.table, self.spec_by_source[source]
        rows, texts = self.rows(source, split_seed), table.labelled.texts
        text_of = np.arange(len(texts)) if spec.is_bag else table.text_of(spec)

        def said(row: int) -> str:
            text = texts[int(text_of[row])]
            if spec.is_bag or not spec.is_by_token or table.tokens is None:
                return text
            start, end = table.tokens.char_S2[row]
            return text[int(start) : int(end)]

        train, validation, test = (
            [said(int(row)) for row in rows[part]] for part in ("train", "validation", "test")
        )
        return train, validation, test

    def surface(self, source: str, split_seed: int) -> tuple[Parts, Texts]:
        """Rows as they are judged, and what they say: what baselines without a model may read.

        Where tokens are judged by their text these are texts, each with its first token's features.
        """
        parts, spec = self.parts(source, split_seed), self.spec_by_source[source]
        if not self.is_judged_by_text(spec):
            return parts, self.row_texts(source, split_seed)
        text_of, texts = self.table.text_of(spec), self.table.labelled.texts
        some, said = [], []
        for name, part in zip(("train", "validation", "test"), parts.all, strict=True):
            numbers, first = np.unique(
                text_of[self.rows(source, split_seed)[name]], return_index=True
            )
            some.append(PartRows(part.x[first], part.y_NL[first], part.items[first]))
            said.append([texts[int(number)] for number in numbers])
        return Parts(*some), (said[0], said[1], said[2])

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
        spec = self.spec_by_source[source]
        if self.is_judged_by_text(spec):
            score_NL = probe.scores(parts.validation.x)
            judged = self.judged(spec, split_seed, "validation", parts.validation, score_NL)
            probe = _tuned(probe, *judged[:2])
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
        """A part's metrics with intervals over items."""
        rows: PartRows = getattr(self.parts(source, split_seed), part)
        spec = self.spec_by_source[source]
        # Classes choose their own settings: only calibrated scores can be held against each other.
        score = probe.calibrated if self._task(spec) == "multiclass" else probe.scores
        score_NL, y_NL, items = self.judged(spec, split_seed, part, rows, score(rows.x))
        return evaluate(
            score_NL,
            y_NL,
            items.tolist(),
            task=self._task(spec),
            thresholds=probe.thresholds_L,
            label_names=self.label_names,
            resamples=resamples,
        )

    def is_judged_by_text(self, spec: FeatureSpec) -> bool:
        """Whether rows are tokens of texts that have labels only as a whole."""
        return spec.is_by_token and not spec.is_bag and self.table.labelled.spans is None

    def judged(
        self, spec: FeatureSpec, split_seed: int, part: Part, rows: PartRows, score_NL: Array
    ) -> tuple[Array, Array, Array]:
        """Scores, labels and items as they are measured.

        Probes on tokens of texts without labelled spans are measured on texts, which their largest
        token score stands for: what is known of single tokens is not true of each.
        """
        if not self.is_judged_by_text(spec):
            return score_NL, rows.y_NL, rows.items
        texts = self.texts_of(spec, split_seed, part)
        return largest_by_text(score_NL, rows.y_NL, rows.items, texts)

    def judge(self, spec: FeatureSpec, split_seed: int) -> Judge:
        """Macro AUROC of the test rows as they are measured, under any labels."""
        if not self.is_judged_by_text(spec):
            return macro_auroc
        texts = self.texts_of(spec, split_seed, "test")

        def by_text(score_NL: Array, y_NL: Array) -> float:
            return macro_auroc(*largest_by_text(score_NL, y_NL, texts, texts)[:2])

        return by_text

    def _kept(self, y_NL: Array, split_seed: int) -> Array:
        """Training rows that are left when negatives are thinned; other parts stay whole."""
        ratio = self.recipe.negatives_per_positive
        assert ratio is not None, "asked only where rows are thinned"
        return subsample_negatives(y_NL, ratio, seed=1000 * self.recipe.seed + split_seed)

    def _task(self, spec: FeatureSpec) -> Literal["binary", "multiclass", "multilabel"]:
        task = self.table.labelled.task
        is_one_class = bool((_labels_of(self.table, spec)[0].sum(axis=1) == 1).all())
        return "multilabel" if task == "multiclass" and not is_one_class else task

    def texts_of(self, spec: FeatureSpec, split_seed: int, part: Part) -> Array:
        """For each row of a part by token the number of its text."""
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
    x = table.matrix(spec)
    if spec.is_bag:
        x = bags_of(x, table.offsets(spec))
    parts = Parts.of(x, *_labels_of(table, spec), rows)
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
    if spec.is_bag:
        return {name: np.asarray(texts, dtype=np.int64) for name, texts in split.rows.items()}
    return {name: table.rows_of(spec, texts) for name, texts in split.rows.items()}


def _labels_of(table: FeatureTable, spec: FeatureSpec) -> tuple[Array, Sequence[str]]:
    """Labels and items of what probes see as rows."""
    if spec.is_bag:
        return table.labelled.y_NL, table.labelled.items
    return table.y(spec), table.items(spec)


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


def _tuned(probe: FittedProbe, score_NL: Array, y_NL: Array) -> FittedProbe:
    """Thresholds and calibration for scores that are judged by the text."""
    labels = tuple(
        replace(label, threshold=best_f1_threshold(s, y), calibration=calibration(s, y))
        for label, s, y in zip(probe.labels, score_NL.T, y_NL.T, strict=True)
    )
    return replace(probe, labels=labels)


def largest_by_text(
    score_NL: Array, y_NL: Array, items: Array, texts: Array
) -> tuple[Array, Array, Array]:
    """Each text's largest scores, with the labels and the item of its first row.

    Args:
        texts: for each row its text, in rising order.
    """
    _, first = np.unique(texts, return_index=True)
    largest = np.maximum.reduceat(score_NL, first, axis=0)
    return largest, y_NL[first], items[first]
