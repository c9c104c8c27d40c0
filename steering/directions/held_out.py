"""How well directions tell texts apart that they were not made from. A torch module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sae.language_model import LanguageModel
from steering.directions.contrast_spec import ReadPosition
from steering.directions.pooled_reading import read_pooled_batches
from steering.errors import BadSteeringInput
from steering.vectors import SteeringVectors

__all__ = ["separation"]


def separation(
    lm: LanguageModel,
    vectors: SteeringVectors,
    positive: Sequence[str],
    negative: Sequence[str],
    pooling: ReadPosition | None = None,
) -> dict[str, float]:
    """AUROC of the projection onto each direction, by write hook.

    Texts are read where the vectors were read. 0.5 is chance; below it a direction points the
    other way. That a direction separates does not show that it steers.

    Args:
        pooling: as the vectors were read if not given.

    Raises:
        BadSteeringInput: an empty side, or vectors that do not say where they were read.
    """
    from sklearn.metrics import roc_auc_score

    read, how = vectors.about.read_hooks, pooling or vectors.about.read_position
    if not positive or not negative or how is None or not read:
        raise BadSteeringInput(
            f"{len(positive)} positive and {len(negative)} negative texts for vectors read at "
            f"{', '.join(read) or 'nowhere'} by {how!r}; give texts of both sides and a pooling"
        )
    units = {hook: vectors.unit(hook) for hook in vectors.hooks}
    score_NL = torch.empty((len(positive) + len(negative), len(units)))
    texts = [*positive, *negative]
    for batch in read_pooled_batches(lm, texts, list(dict.fromkeys(read)), how):
        for place, (read_hook, unit_D) in enumerate(zip(read, units.values(), strict=True)):
            score_NL[batch.row_N, place] = batch.vector_ND_by_hook[read_hook] @ unit_D
    is_positive = np.arange(len(texts)) < len(positive)
    scores = score_NL.numpy()
    return {
        hook: float(roc_auc_score(is_positive, scores[:, place]))
        for place, hook in enumerate(units)
    }
