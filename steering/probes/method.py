"""What a probe method is, and what fitting one gives: settings chosen on validation rows only.

Shape suffixes: N = rows, D = columns, L = labels.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array, Bags, Matrix, as_features
from steering.probes.ranking_metrics import auroc, average_precision
from steering.probes.scorers import BagLinear, Scorer, scorer_of

__all__ = ["Candidate", "FittedProbe", "LabelProbe", "ProbeMethod", "SelectBy", "Setting"]

Setting = Mapping[str, float | int | str | bool]
"""One point of a method's grid, such as {"c": 0.1}, with what was noticed when it was fitted."""

SelectBy = Literal["auroc", "auprc"]

PROBE_FILE = "probe.json"
ARRAYS_FILE = "probe.npz"


@dataclass(frozen=True)
class Candidate:
    """A probe of one label with one setting."""

    setting: Setting
    scorer: Scorer
    validation_N: Array | None = None
    """Its scores of the validation rows, where they are known already."""


class Prepared(ABC):
    """What all labels share of a method's work: scaled rows, components, neighbours."""

    @abstractmethod
    def candidates(self, y_N: Array, weight_N: Array) -> Iterator[Candidate]:
        """Fit one label with each setting, the simplest first.

        Args:
            y_N: bool, with both classes.
            weight_N: mean 1.
        """


class ProbeMethod(BaseModel, ABC):
    """A way to read a label off a row, with the grid of settings to choose from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    by_name: ClassVar[dict[str, type[ProbeMethod]]] = {}
    name: ClassVar[str]
    """As it is written in a sweep file."""
    reads_bags: ClassVar[bool] = False
    """Whether it reads `Bags`: a row is a text with all its tokens, and the text has the labels."""
    weighs_rows: ClassVar[bool] = True
    """Whether weights of rows, and so modes of imbalance, mean anything to it."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "name" not in vars(cls):  # a method with further fields, for a sweep file
            return
        other = ProbeMethod.by_name.get(cls.name)
        if other is not None and other.__module__ != cls.__module__:
            raise TypeError(f"{cls.__module__} and {other.__module__} are both named {cls.name!r}")
        ProbeMethod.by_name[cls.name] = cls

    @abstractmethod
    def prepare(self, x_train: Matrix, x_validation: Matrix, seed: int) -> Prepared:
        """What does not depend on the label; nothing but scores is read off validation rows."""


@dataclass(frozen=True)
class LabelProbe:
    """The probe of one label."""

    scorer: Scorer
    chosen: Setting
    validation_score: float
    """AUROC or AUPRC, by which the setting was chosen."""
    threshold: float
    """Tuned for F1 on validation rows."""
    calibration: tuple[float, float]
    """Slope and offset that make log odds of scores, from validation rows."""
    tried: tuple[tuple[Setting, float], ...]
    """Every setting with its validation score, in the order of the grid."""


@dataclass(frozen=True)
class FittedProbe:
    """Probes of all labels, a method's settings chosen for each."""

    method: str
    width: int
    """Columns of the features it reads."""
    labels: tuple[LabelProbe, ...]
    select_by: SelectBy

    @property
    def chosen(self) -> tuple[Setting, ...]:
        """Of each label, the setting that was chosen."""
        return tuple(label.chosen for label in self.labels)

    @property
    def thresholds_L(self) -> Array:
        """Of each label, the score from which on it is predicted."""
        return np.array([label.threshold for label in self.labels])

    @property
    def validation_score(self) -> float:
        """Mean over labels of what the settings were chosen by."""
        return float(np.mean([label.validation_score for label in self.labels]))

    def scores(self, x: Matrix) -> Array:
        """Log odds of each label, float64 [N, L].

        Raises:
            BadSteeringInput: another number of columns than it was fitted to.
        """
        x = as_features(x, "x")
        if x.shape[1] != self.width:
            raise BadSteeringInput(
                f"the probe reads {self.width} columns; these features have {x.shape[1]}"
            )
        memo: dict[int, Any] = {}
        return np.stack([label.scorer.scores(x, memo) for label in self.labels], axis=1)

    def token_scores(self, x: Bags) -> Array:
        """Scores of the tokens of bags, each alone, float64 [T, L].

        Raises:
            BadSteeringInput: the method reads single rows: `scores` of tokens are theirs.
        """
        scorers = [label.scorer for label in self.labels]
        of_bags = [scorer for scorer in scorers if isinstance(scorer, BagLinear)]
        if len(of_bags) < len(scorers):
            raise BadSteeringInput(f"{self.method} reads no bags; give the tokens to `scores`")
        return np.stack([scorer.token_scores(x) for scorer in of_bags], axis=1)

    def calibrated(self, x: Matrix) -> Array:
        """Log odds that can be compared between labels, float64 [N, L]: take these to choose among
        classes, whose probes may have penalties of different strengths. Ranks are those of
        `scores`; `thresholds_L` are not for these."""
        slope_L, offset_L = np.array([label.calibration for label in self.labels]).T
        return self.scores(x) * slope_L + offset_L

    def weights(self) -> Array:
        """Weights of the raw columns, [L, D].

        Raises:
            BadSteeringInput: the method is not linear.
        """
        rows = [label.scorer.weights() for label in self.labels]
        known = [row for row in rows if row is not None]
        if len(known) < len(rows):
            raise BadSteeringInput(f"{self.method} is not linear in its features: no weights")
        return np.stack(known)

    def columns(self, label: int) -> Array:
        """Columns with a weight other than 0, the largest |weight| first; as `weights`."""
        weight_D = np.abs(self.weights()[label])
        return np.argsort(-weight_D, kind="stable")[: int((weight_D > 0).sum())]

    def save(self, folder: Path) -> None:
        """Write `probe.json` and `probe.npz`; no pickles."""
        stored: dict[str, Array] = {}
        name_of: dict[int, str] = {}
        labels = []
        for number, label in enumerate(self.labels):
            names = {}
            for key, array in label.scorer.arrays().items():
                # Labels share large arrays, such as the training rows of neighbours.
                names[key] = name_of.setdefault(id(array), f"{number}.{key}")
                stored[names[key]] = array
            labels.append(
                {
                    "kind": label.scorer.kind,
                    "arrays": names,
                    "chosen": dict(label.chosen),
                    "validation_score": label.validation_score,
                    "threshold": label.threshold,
                    "calibration": list(label.calibration),
                    "tried": [(dict(setting), score) for setting, score in label.tried],
                }
            )
        folder.mkdir(parents=True, exist_ok=True)
        head = {"method": self.method, "width": self.width, "select_by": self.select_by}
        np.savez(folder / ARRAYS_FILE, allow_pickle=False, **stored)
        (folder / PROBE_FILE).write_text(json.dumps(head | {"labels": labels}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> FittedProbe:
        """What `save` wrote."""
        head = json.loads((folder / PROBE_FILE).read_text())
        with np.load(folder / ARRAYS_FILE, allow_pickle=False) as arrays:
            by_name = {name: arrays[name] for name in arrays.files}
        labels = tuple(_label_of(label, by_name) for label in head["labels"])
        return cls(head["method"], head["width"], labels, head["select_by"])


def _label_of(stored: Mapping[str, Any], by_name: Mapping[str, Array]) -> LabelProbe:
    arrays = {key: by_name[name] for key, name in stored["arrays"].items()}
    return LabelProbe(
        scorer_of(stored["kind"], arrays),
        stored["chosen"],
        stored["validation_score"],
        stored["threshold"],
        (stored["calibration"][0], stored["calibration"][1]),
        tuple((setting, score) for setting, score in stored["tried"]),
    )


def choose(
    candidates: Iterator[Candidate],
    x_validation: Matrix,
    y_N: Array,
    select_by: SelectBy,
) -> tuple[Candidate, Array, tuple[tuple[Setting, float], ...]]:
    """The candidate with the best validation score (of equal ones the first), its scores, all."""
    measure = auroc if select_by == "auroc" else average_precision
    best: tuple[float, Candidate, Array] | None = None
    tried: list[tuple[Setting, float]] = []
    for candidate in candidates:
        score_N = candidate.validation_N
        if score_N is None:
            score_N = candidate.scorer.scores(x_validation)
        value = measure(score_N, y_N)
        tried.append((candidate.setting, value))
        if best is None or value > best[0]:
            best = (value, candidate, score_N)
    assert best is not None, "a grid has at least one setting"
    return best[1], best[2], tuple(tried)


def unlearnable(y_NL: Array, names: Sequence[str]) -> list[str]:
    """Labels that have only one class in these rows."""
    return [name for name, y_N in zip(names, y_NL.T, strict=True) if y_N.all() or not y_N.any()]
