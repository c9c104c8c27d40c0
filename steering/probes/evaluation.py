"""How good a probe's scores are: numbers as scikit-learn's, intervals over resampled items.

Shape suffixes: N = rows, L = labels, U = items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import Interval
from steering.probes.matrices import Array, as_labels
from steering.probes.ranking_metrics import RankedLabel, cut
from steering.probes.resampling import resampled_intervals

__all__ = [
    "OBJECTIVES",
    "Evaluation",
    "LabelEvaluation",
    "Task",
    "check_objective",
    "evaluate",
    "majority_share",
]

Task = Literal["binary", "multiclass", "multilabel"]

OBJECTIVES = (
    "auroc", "auprc", "macro_f1", "micro_f1", "balanced_accuracy", "accuracy",
)  # fmt: skip
MAX_MAJORITY_FOR_ACCURACY = 0.8
RESAMPLES = 1000


@dataclass(frozen=True)
class LabelEvaluation:
    """One label, or one class against the rest."""

    name: str
    positives: int
    rows: int
    auroc: Interval
    auprc: Interval
    f1: Interval
    threshold: float
    precision: float
    recall: float
    roc: dict[str, list[float]]
    """`false_positive_rate`, `true_positive_rate`."""
    precision_recall: dict[str, list[float]]
    """`recall`, `precision`, `threshold`."""


@dataclass(frozen=True)
class Evaluation:
    """What a probe's scores are worth on rows that it has not seen."""

    metrics: dict[str, Interval]
    """auroc, auprc (both macro; auprc is mAP), macro_f1, micro_f1, balanced_accuracy, accuracy;
    nan where a class is missing."""
    labels: tuple[LabelEvaluation, ...]
    majority_share: float
    """What always saying the most frequent answer would score as accuracy."""
    items: int
    rows: int
    undefined: tuple[str, ...]
    """Labels with one class only: they are in no mean of AUROC or AUPRC."""

    def value(self, metric: str) -> float:
        """The estimate of a metric.

        Raises:
            BadSteeringInput: an unknown metric.
        """
        if metric not in self.metrics:
            raise BadSteeringInput(
                f"metric={metric!r} is unknown; known metrics: {', '.join(self.metrics)}"
            )
        return self.metrics[metric].estimate

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; None for nan."""
        return {
            "metrics": {name: interval_json(one) for name, one in self.metrics.items()},
            "labels": [
                {
                    "name": label.name,
                    "positives": label.positives,
                    "rows": label.rows,
                    "auroc": interval_json(label.auroc),
                    "auprc": interval_json(label.auprc),
                    "f1": interval_json(label.f1),
                    "threshold": number_json(label.threshold),
                    "precision": number_json(label.precision),
                    "recall": number_json(label.recall),
                    "roc": label.roc,
                    "precision_recall": label.precision_recall,
                }
                for label in self.labels
            ],
            "majority_share": self.majority_share,
            "items": self.items,
            "rows": self.rows,
            "undefined": list(self.undefined),
        }


def number_json(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def interval_json(interval: Interval) -> dict[str, float | None]:
    """`estimate`, `low`, `high`."""
    return {name: number_json(getattr(interval, name)) for name in ("estimate", "low", "high")}


def majority_share(y: Any, task: Task) -> float:
    """The accuracy of always giving the most frequent answer; of multi-label the labels' mean."""
    y_NL = as_labels(y, len(y), "y")
    share_L = y_NL.mean(axis=0)
    if task == "multiclass":
        return float(share_L.max())
    return float(np.maximum(share_L, 1 - share_L).mean())


def check_objective(objective: str, y: Any, task: Task) -> None:
    """Refuse an objective that is unknown, or accuracy where saying one answer scores high.

    Raises:
        BadSteeringInput: with the share and what to take instead.
    """
    if objective not in OBJECTIVES:
        raise BadSteeringInput(
            f"objective={objective!r} is unknown; known objectives: {', '.join(OBJECTIVES)}"
        )
    if objective == "accuracy":
        share = majority_share(y, task)
        if share > MAX_MAJORITY_FOR_ACCURACY:
            raise BadSteeringInput(
                f"objective=accuracy, but always giving the most frequent answer is right for "
                f"{share:.1%} of the rows, above {MAX_MAJORITY_FOR_ACCURACY:.0%}; take auroc, "
                "auprc or macro_f1"
            )


def evaluate(
    scores: Array,
    y: Any,
    items: Sequence[Any] | Array,
    *,
    task: Task = "binary",
    thresholds: Array | None = None,
    label_names: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Evaluation:
    """All metrics with intervals from resampled items.

    Args:
        scores: [N, L] or [N]; higher means more surely positive. For multiclass of
            `FittedProbe.calibrated`, which can be compared between classes.
        y: bool, as the scores; for multiclass a column a class, one True a row.
        items: for each row what it belongs to; rows of one item are resampled together.
        thresholds: [L], tuned on validation rows; None for 0 (even odds). A class of multiclass is
            predicted by the highest score, its threshold is not used.
        resamples: 0 for no intervals (low and high are then nan).

    Raises:
        BadSteeringInput: shapes that do not fit, scores that are not finite, fewer than two items.
    """
    score_NL = np.asarray(scores, dtype=np.float64)
    score_NL = score_NL[:, None] if score_NL.ndim == 1 else score_NL
    y_NL = as_labels(y, len(score_NL), "y")
    _check(score_NL, y_NL, items, task)
    count = score_NL.shape[1]
    threshold_L = np.zeros(count) if thresholds is None else np.asarray(thresholds, dtype=float)
    called_NL = _called(score_NL, threshold_L, task)
    ranked = [RankedLabel(score_NL[:, label], y_NL[:, label]) for label in range(count)]
    found = resampled_intervals(
        _statistic(ranked, called_NL, y_NL, task), items, seed=seed, resamples=resamples,
        confidence=confidence,
    )  # fmt: skip
    names = label_names or [f"label {number}" for number in range(count)]
    labels = tuple(
        _label(names[n], ranked[n], called_NL[:, n], y_NL[:, n], threshold_L[n], found, n)
        for n in range(count)
    )
    return Evaluation(
        {name: found[name] for name in OBJECTIVES},
        labels,
        majority_share(y_NL, task),
        len(set(map(str, items))),
        len(y_NL),
        tuple(label.name for label in labels if math.isnan(label.auroc.estimate)),
    )


def _check(score_NL: Array, y_NL: Array, items: Sequence[Any] | Array, task: Task) -> None:
    if score_NL.shape != y_NL.shape or len(items) != len(y_NL):
        raise BadSteeringInput(
            f"scores are {score_NL.shape}, labels {y_NL.shape}, items {len(items)}; "
            "rows and labels must be equally many"
        )
    if not np.isfinite(score_NL).all():
        raise BadSteeringInput("scores that are not finite cannot be ranked")
    if task == "binary" and y_NL.shape[1] != 1:
        raise BadSteeringInput(
            f"task=binary has one label, not {y_NL.shape[1]}; say multiclass or multilabel"
        )
    if task == "multiclass" and not (y_NL.sum(axis=1) == 1).all():
        raise BadSteeringInput(
            "task=multiclass needs exactly one class in each row; say multilabel where a row can "
            "have several or none"
        )


def _called(score_NL: Array, threshold_L: Array, task: Task) -> Array:
    if task != "multiclass":
        return score_NL >= threshold_L
    return np.arange(score_NL.shape[1]) == score_NL.argmax(axis=1)[:, None]


def _statistic(
    ranked: Sequence[RankedLabel], called_NL: Array, y_NL: Array, task: Task
) -> Callable[[Array | None], dict[str, float]]:
    """Row weights (None for 1 each) -> every number, overall and of each label."""

    def measure(weight_N: Array | None) -> dict[str, float]:
        out: dict[str, float] = {}
        cuts = np.array(
            [cut(called, y, weight_N) for called, y in zip(called_NL.T, y_NL.T, strict=True)]
        )
        for number, label in enumerate(ranked):
            out[f"auroc.{number}"] = label.auroc(weight_N)
            out[f"auprc.{number}"] = (
                float("nan") if math.isnan(out[f"auroc.{number}"])
                else label.average_precision(weight_N)
            )  # fmt: skip
            out[f"f1.{number}"] = _f1(*cuts[number, :3])
        for name in ("auroc", "auprc"):
            out[name] = _mean([out[f"{name}.{number}"] for number in range(len(ranked))])
        return out | _decisions(cuts, called_NL, y_NL, weight_N, task)

    return measure


def _decisions(
    cuts: Array, called_NL: Array, y_NL: Array, weight_N: Array | None, task: Task
) -> dict[str, float]:
    """Metrics of what was called, from each label's (tp, fp, fn, tn)."""
    tp, fp, fn, tn = cuts.T
    positive_f1 = [_f1(*one[:3]) for one in cuts]
    right_N = (called_NL == y_NL).all(axis=1)
    out = {
        "accuracy": float(np.average(right_N, weights=weight_N)),
        "micro_f1": _f1(float(tp.sum()), float(fp.sum()), float(fn.sum())),
        "macro_f1": float(np.mean(positive_f1)),
    }
    recall_L = [_share(one[0], one[0] + one[2]) for one in cuts]
    if task == "multiclass":
        return out | {"balanced_accuracy": _mean(recall_L)}
    if task == "binary":
        # Macro over both classes, as f1_score(average="macro") of 0 and 1; micro is accuracy.
        negative_f1 = _f1(float(tn[0]), float(fn[0]), float(fp[0]))
        out |= {"macro_f1": (positive_f1[0] + negative_f1) / 2, "micro_f1": out["accuracy"]}
    specificity_L = [_share(one[3], one[3] + one[1]) for one in cuts]
    both = [_mean([a, b]) for a, b in zip(recall_L, specificity_L, strict=True)]
    return out | {"balanced_accuracy": _mean(both)}


def _label(
    name: str,
    ranked: RankedLabel,
    called_N: Array,
    y_N: Array,
    threshold: float,
    found: dict[str, Interval],
    number: int,
) -> LabelEvaluation:
    tp, fp, fn, _ = cut(called_N, y_N)
    return LabelEvaluation(
        name,
        int(y_N.sum()),
        len(y_N),
        found[f"auroc.{number}"],
        found[f"auprc.{number}"],
        found[f"f1.{number}"],
        float(threshold),
        _share(tp, tp + fp),
        _share(tp, tp + fn),
        ranked.roc_curve(),
        ranked.precision_recall_curve(),
    )


def _f1(tp: float, fp: float, fn: float) -> float:
    """0 where there is neither a positive nor a call, as scikit-learn has it."""
    whole = 2 * tp + fp + fn
    return float(2 * tp / whole) if whole > 0 else 0.0


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _mean(values: Sequence[float]) -> float:
    """Of those that are defined; nan where none is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
