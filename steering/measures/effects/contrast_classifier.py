"""Effect by a small classifier: logistic regression over sentence embeddings of contrast texts.

It is fitted on the training half of the contrast and measured on the other one, which no direction
is made from either. A classifier that cannot tell the two sides apart cannot measure an effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.measures.effects.meter import Array
from steering.measures.sentences import MINILM, sentence_features
from steering.styles.encoders import EncoderSpec

__all__ = ["ContrastClassifier", "fit_contrast_classifier"]

INVERSE_REGULARISATION = 4.0
"""sklearn's C on embeddings of length one: with 1.0 the probabilities of a hundred texts hardly
leave the middle."""
MIN_AUROC = 0.6


@dataclass(frozen=True)
class ContrastClassifier:
    """P(positive side) of a text."""

    weight_D: Array
    bias: float
    encoder: EncoderSpec
    auroc: float | None
    """On the validation half; None where it has not both sides."""
    accuracy: float | None
    num_train: int

    def score(self, texts: Sequence[str]) -> Array:
        """P(positive), [N], float64; 0 for an empty text. Raises BadStyleData."""
        features_ND = sentence_features(texts, self.encoder)
        logit_N = _units(features_ND) @ self.weight_D + self.bias
        is_text_N = np.array([bool(text.strip()) for text in texts])
        found: Array = np.where(is_text_N, 1.0 / (1.0 + np.exp(-logit_N)), 0.0)
        return found

    @property
    def record(self) -> Mapping[str, Any]:
        """What it is and how well it tells the validation half apart."""
        return {
            "effect": "probability of the positive side, logistic regression over embeddings",
            "encoder": self.encoder.model_dump(mode="json", exclude_none=True),
            "num_train": self.num_train,
            "validation_auroc": self.auroc,
            "validation_accuracy": self.accuracy,
        }


def fit_contrast_classifier(
    train: tuple[Sequence[str], Sequence[str]],
    validation: tuple[Sequence[str], Sequence[str]],
    encoder: EncoderSpec = MINILM,
    *,
    sides: str = "the two sides of the contrast",
) -> ContrastClassifier:
    """Fit on (positive, negative) texts and measure on others.

    Args:
        sides: what they are called where they cannot be told apart.

    Raises:
        BadSteeringInput: a side without texts, or sides that cannot be told apart.
        BadStyleData: the encoder cannot be loaded.
    """
    from sklearn.linear_model import LogisticRegression

    if not train[0] or not train[1]:
        raise BadSteeringInput(
            f"a classifier of the effect needs texts on both sides; got {len(train[0])} positive "
            f"and {len(train[1])} negative ones"
        )
    x_ND, y_N = _units(sentence_features([*train[0], *train[1]], encoder)), _labels(train)
    model = LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=2000)
    model.fit(x_ND, y_N)
    weight_D, bias = model.coef_[0].astype(np.float64), float(model.intercept_[0])
    auroc, accuracy = _quality(weight_D, bias, validation, encoder)
    if auroc is not None and auroc < MIN_AUROC:
        raise BadSteeringInput(
            f"{sides} cannot be told apart by their sentence embeddings: "
            f"AUROC {auroc:.2f} on the held-out texts, at least {MIN_AUROC} is needed to measure "
            "an effect; give more texts, or another measure: effect: {classifier: ...}"
        )
    return ContrastClassifier(weight_D, bias, encoder, auroc, accuracy, len(y_N))


def _quality(
    weight_D: Array,
    bias: float,
    validation: tuple[Sequence[str], Sequence[str]],
    encoder: EncoderSpec,
) -> tuple[float | None, float | None]:
    from sklearn.metrics import roc_auc_score

    if not validation[0] or not validation[1]:
        return None, None
    x_ND = _units(sentence_features([*validation[0], *validation[1]], encoder))
    y_N, logit_N = _labels(validation), x_ND @ weight_D + bias
    return float(roc_auc_score(y_N, logit_N)), float(((logit_N > 0) == y_N).mean())


def _labels(sides: tuple[Sequence[str], Sequence[str]]) -> Array:
    return np.array([1] * len(sides[0]) + [0] * len(sides[1]))


def _units(x_ND: Array) -> Array:
    units: Array = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True).clip(min=1e-12)
    return units.astype(np.float64)
