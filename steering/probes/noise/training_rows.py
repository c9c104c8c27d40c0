"""What is done to training rows alone: labels made wrong on purpose, negatives thinned.

Shape suffixes: N = rows, L = labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.probes.matrices import Array
from steering.probes.noise.label_flips import Flip, flip_labels
from steering.probes.noise.subsampling import subsample_negatives

__all__ = ["TrainingRows"]


@dataclass(frozen=True)
class TrainingRows:
    """Noise first, then thinning by the labels that are left: wrong ones are not known as such.

    Validation and test rows stay as they are, so that settings are chosen and probes judged by
    clean labels: what noise costs at best. `noise_sweep` has noisy validation labels too.
    """

    label_noise: Flip = "symmetric"
    noise_rate: float = 0.0
    """Of items whose label is flipped."""
    negatives_per_positive: float | None = None
    """So many rows without any label for each with one; None for all."""

    @property
    def is_as_given(self) -> bool:
        """Whether nothing is done."""
        return self.noise_rate == 0 and self.negatives_per_positive is None

    def drawn(self, y_NL: Array, items: Sequence[Any] | Array, seed: int) -> tuple[Array, Array]:
        """Places of the rows that are kept, rising, and the labels of these.

        Raises:
            BadSteeringInput: no positive is left to count from.
        """
        y_NL = flip_labels(y_NL, self.noise_rate, self.label_noise, items=items, seed=seed)
        if self.negatives_per_positive is None:
            return np.arange(len(y_NL)), y_NL
        kept = subsample_negatives(y_NL, self.negatives_per_positive, seed=seed)
        return kept, y_NL[kept]
