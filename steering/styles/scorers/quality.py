"""How well scores are predicted, an attribute at a time. numpy; N = rows, A = attributes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steering.styles.catalogue import Attribute

Array = np.ndarray[Any, Any]

EDGE, SHARE_AT_EDGES = 0.1, 0.9
"""A target is taken for a yes or no where so many of its values are that near to 0 or 1."""
MIN_OF_EACH = 5
"""Of fewer yeses or noes an AUROC says nothing."""


@dataclass(frozen=True)
class AttributeQuality:
    """One attribute; nan where the number means nothing."""

    attribute: Attribute
    r2: float
    """1 - squared error over that of the rows' mean; nan for a target that is constant."""
    auroc: float
    """Of a target that is a yes or no."""
    mean_target: float
    deviation_target: float

    def to_json(self) -> dict[str, Any]:
        """nan is None."""
        return {
            "id": self.attribute.id,
            "text": self.attribute.text,
            "r2": _known(self.r2),
            "auroc": _known(self.auroc),
            "mean_target": self.mean_target,
            "deviation_target": self.deviation_target,
        }


def quality(
    predicted_NA: Array, target_NA: Array, attributes: Sequence[Attribute]
) -> list[AttributeQuality]:
    """Of every attribute, over rows that were not trained on."""
    r2_A = r2_by_attribute(predicted_NA, target_NA)
    return [
        AttributeQuality(
            one,
            float(r2_A[place]),
            _auroc(predicted_NA[:, place], target_NA[:, place]),
            float(target_NA[:, place].mean()),
            float(target_NA[:, place].std()),
        )
        for place, one in enumerate(attributes)
    ]


def r2_by_attribute(predicted_NA: Array, target_NA: Array) -> Array:
    """[A], float64; nan where the target is constant."""
    target_NA = target_NA.astype(np.float64)
    left_A = ((predicted_NA - target_NA) ** 2).sum(axis=0)
    there_A = ((target_NA - target_NA.mean(axis=0)) ** 2).sum(axis=0)
    constant_A = there_A <= 1e-12 * len(target_NA)
    return np.where(constant_A, np.nan, 1.0 - left_A / np.where(constant_A, 1.0, there_A))


def mean_known(values: Sequence[float] | Array) -> float:
    """Mean of those that are not nan; nan if there is none."""
    known = [value for value in values if value == value]
    return float(sum(known) / len(known)) if known else float("nan")


def write_quality_csv(path: Path, found: Sequence[AttributeQuality]) -> None:
    """A line an attribute."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [one.to_json() for one in found]
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _auroc(predicted_N: Array, target_N: Array) -> float:
    from sklearn.metrics import roc_auc_score

    at_edges = (np.abs(target_N) <= EDGE) | (np.abs(target_N - 1.0) <= EDGE)
    is_yes_N = target_N >= 0.5
    num_yes = int(is_yes_N.sum())
    if at_edges.mean() < SHARE_AT_EDGES or min(num_yes, len(target_N) - num_yes) < MIN_OF_EACH:
        return float("nan")
    return float(roc_auc_score(is_yes_N, predicted_N))


def _known(value: float) -> float | None:
    return None if value != value else value
