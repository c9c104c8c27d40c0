"""Token probes judged: by item always, by token only under a declared model of the labels' noise.

Shape suffixes: T = tokens, I = items, L = labels.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.errors import BadSteeringInput
from steering.intervals import Interval
from steering.probes.evaluation import Evaluation, Task, evaluate
from steering.probes.matrices import Array, as_labels
from steering.probes.noise.token_bags import TokenBags, pool_scores

__all__ = ["NoiseModel", "evaluate_items", "evaluate_tokens"]


class NoiseModel(BaseModel):
    """What is claimed of token labels. Without it a number by token means nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["clean", "class_conditional"]
    """clean: tokens were labelled themselves, such as by spans. class_conditional: labels are wrong
    at two known rates, whatever the token."""
    wrong_among_positive: float = Field(default=0.0, ge=0, lt=1)
    """Share of the tokens labelled positive that are not: for a positive item's tokens the
    background."""
    wrong_among_negative: float = Field(default=0.0, ge=0, lt=1)
    """Share of the tokens labelled negative that are positive."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = self.wrong_among_positive + self.wrong_among_negative
        if self.kind == "clean" and wrong > 0:
            raise ValueError("kind=clean has no wrong labels; say class_conditional")
        if wrong >= 1:
            raise ValueError(
                f"wrong_among_positive + wrong_among_negative = {wrong:g} must be below 1: from "
                "there on labels say nothing, or the opposite"
            )
        return self

    @property
    def kept(self) -> float:
        """How much of an AUROC's distance from 0.5 is left in one against the wrong labels."""
        return 1 - self.wrong_among_positive - self.wrong_among_negative

    def is_possible(self, as_labelled: Interval) -> bool:
        """Whether this noise can leave such an AUROC against the wrong labels, or one within its
        interval; nan counts as possible."""
        reach = 0.5 * self.kept
        return not (as_labelled.low - 0.5 > reach or 0.5 - as_labelled.high > reach)


def evaluate_items(
    token_scores: Array,
    bags: TokenBags,
    *,
    pooling: str = "max",
    task: Task = "binary",
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Items by their tokens' scores: the number that labels of items can answer for.

    Args:
        token_scores: [T, L] or [T].
        pooling: max, mean or last.
    """
    score_TL = np.asarray(token_scores, dtype=float).reshape(bags.values_TD.shape[0], -1)
    score_IL = pool_scores(score_TL, bags.offsets_I1, pooling)
    return evaluate(score_IL, bags.y_IL, bags.items, task=task, seed=seed, resamples=resamples)


def evaluate_tokens(
    token_scores: Array,
    y_tokens: Any,
    token_items: Any,
    noise: NoiseModel | None,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Interval]:
    """Token-level AUROC under the noise that is declared.

    With class-conditional noise (Menon et al. 2015, corollary 3) the AUROC against wrong labels
    lies nearer to 0.5 than the true one by 1 - wrong_among_positive - wrong_among_negative, which
    is turned round here.

    Args:
        y_tokens: labels of the tokens as they are, bool [T] or [T, 1].
        token_items: for each token its item: tokens of an item are resampled together.

    Returns:
        `auroc_as_labelled`, and `auroc`: what it would be against true labels.

    Raises:
        BadSteeringInput: no noise model, more than one label.
    """
    if noise is None:
        raise BadSteeringInput(
            "token-level numbers need a declared noise model: an item's label says nothing of its "
            "single tokens, and most tokens of a positive item carry nothing. Give spans "
            "(NoiseModel(kind='clean')) or the two rates (kind='class_conditional'), or report "
            "items alone"
        )
    y_TL = as_labels(y_tokens, len(np.asarray(token_scores)), "y_tokens")
    if y_TL.shape[1] != 1:
        raise BadSteeringInput(f"{y_TL.shape[1]} labels; judge tokens one label at a time")
    found = evaluate(token_scores, y_TL, token_items, seed=seed, resamples=resamples)
    labelled = found.metrics["auroc"]
    # Sampling may put the corrected number beyond what an AUROC can be.
    estimate, low, high = (
        float(np.clip(0.5 + (value - 0.5) / noise.kept, 0, 1))
        for value in (labelled.estimate, labelled.low, labelled.high)
    )
    clean = Interval(estimate, low, high, labelled.confidence)
    return {"auroc_as_labelled": labelled, "auroc": clean}
