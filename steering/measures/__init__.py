"""What steering did to a model's answers: effect, relevance, fluency, and the three as one number.

Importing the package imports no torch.
"""

from __future__ import annotations

from steering.measures.effect import EffectMeter, EffectSpec, open_effect
from steering.measures.fluency import Fluency, FluencyMean, fluency
from steering.measures.objective import (
    Measured,
    Scores,
    harmonic_mean,
    overall,
    score_intervals,
    scores,
)
from steering.measures.relevance import relevance

__all__ = [
    "EffectMeter",
    "EffectSpec",
    "Fluency",
    "FluencyMean",
    "Measured",
    "Scores",
    "fluency",
    "harmonic_mean",
    "open_effect",
    "overall",
    "relevance",
    "score_intervals",
    "scores",
]
