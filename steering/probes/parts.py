"""Rows to train on, to choose settings on, and to report on: features, labels, items together.

Shape suffixes: N = rows, D = columns, L = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec
from steering.probes.matrices import Array, Bags, Matrix, as_features, as_labels
from steering.probes.method import FittedProbe, ProbeMethod, SelectBy
from steering.probes.methods import fit
from steering.probes.ranking_metrics import auroc

__all__ = ["Judge", "PartRows", "Parts", "fit_parts", "macro_auroc"]

Judge = Callable[[Array, Array], float]
"""Scores and labels [N, L] of the test rows -> one number, such as `macro_auroc`."""


@dataclass(frozen=True)
class PartRows:
    """Rows of one part."""

    x: Matrix
    y_NL: Array
    items: Array
    """For each row what it belongs to, str [N]."""

    @classmethod
    def of(cls, x: Matrix, y: Any, items: Sequence[Any] | Array, name: str = "part") -> PartRows:
        """Check that features, labels and items have the same rows.

        Raises:
            BadSteeringInput: they have not.
        """
        x = as_features(x, f"x of {name}")
        y_NL = as_labels(y, x.shape[0], f"y of {name}")
        if len(items) != x.shape[0]:
            raise BadSteeringInput(f"{name} has {x.shape[0]} rows, but {len(items)} items")
        return cls(x, y_NL, np.asarray(items, dtype=str))


@dataclass(frozen=True)
class Parts:
    """The three parts of labelled features."""

    train: PartRows
    validation: PartRows
    test: PartRows

    @classmethod
    def of(
        cls, x: Matrix, y: Any, items: Sequence[Any], rows: Mapping[str, Sequence[int] | Array]
    ) -> Parts:
        """Cut features into parts by row numbers of `train`, `validation` and `test`."""
        y_NL = as_labels(y, x.shape[0], "y")
        item_N = np.asarray(items, dtype=str)

        def part(name: str) -> PartRows:
            own = np.asarray(rows[name], dtype=np.int64)
            return PartRows.of(x[own], y_NL[own], item_N[own], name)

        return cls(part("train"), part("validation"), part("test"))

    @property
    def all(self) -> tuple[PartRows, PartRows, PartRows]:
        """Train, validation, test."""
        return self.train, self.validation, self.test

    @property
    def shared_items(self) -> frozenset[str]:
        """Items with rows in training and in another part: none, where the split is by item."""
        others = set(self.validation.items.tolist()) | set(self.test.items.tolist())
        return frozenset(others & set(self.train.items.tolist()))

    def with_labels(self, train: Any, validation: Any, test: Any) -> Parts:
        """The same features with other labels."""
        new = (
            replace(part, y_NL=as_labels(y, part.x.shape[0], "y"))
            for part, y in zip(self.all, (train, validation, test), strict=True)
        )
        return Parts(*new)

    def with_features(self, train: Matrix, validation: Matrix, test: Matrix) -> Parts:
        """The same labels with other features."""
        new = (
            replace(part, x=as_features(x, "x"))
            for part, x in zip(self.all, (train, validation, test), strict=True)
        )
        return Parts(*new)

    def as_rows(self) -> Parts:
        """Bags of tokens as one row each: every column's largest value. Others as they are."""
        return self.with_features(
            *(part.x.largest() if isinstance(part.x, Bags) else part.x for part in self.all)
        )

    def columns(self, columns_K: Array) -> Parts:
        """These columns of the features."""
        return self.with_features(*(part.x[:, columns_K] for part in self.all))


def fit_parts(
    method: str | ProbeMethod,
    parameters: Mapping[str, Any] | None,
    parts: Parts,
    *,
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    seed: int = 0,
    select_by: SelectBy = "auroc",
    label_names: Sequence[str] | None = None,
) -> FittedProbe:
    """`methods.fit` on the first two parts; the test part is not looked at."""
    return fit(
        method,
        parameters,
        parts.train.x,
        parts.train.y_NL,
        parts.validation.x,
        parts.validation.y_NL,
        imbalance=imbalance,
        seed=seed,
        select_by=select_by,
        label_names=label_names,
    )


def macro_auroc(score_NL: Array, y_NL: Array) -> float:
    """Mean AUROC of the labels that have both classes; nan where none has."""
    values = np.array([auroc(s, y) for s, y in zip(score_NL.T, y_NL.T, strict=True)])
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
