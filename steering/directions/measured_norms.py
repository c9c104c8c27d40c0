"""Residual norms at hooks, for vectors that came without: imported ones, decoder rows, probes.

A torch module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sae.language_model import LanguageModel
from steering.directions.pooled_reading import NormMeter, norm_hook
from steering.errors import BadSteeringInput
from steering.reading import read_activations
from steering.vectors import SteeringVectors, model_identity

__all__ = ["measured_norms", "with_norms"]


def measured_norms(lm: LanguageModel, hooks: Sequence[str], texts: Sequence[str]) -> NormMeter:
    """Norms at write hooks over the tokens of some texts. Raises BadSteeringInput, UnknownHook."""
    if not texts:
        raise BadSteeringInput("residual norms are measured over texts; give at least one")
    norms = NormMeter([norm_hook(hook) for hook in hooks])
    for batch, acts in read_activations(lm, texts, list(dict.fromkeys(norms.hooks))):
        norms.add(acts, batch.is_text_NT)
    return norms


def with_norms(
    lm: LanguageModel, vectors: SteeringVectors, texts: Sequence[str]
) -> SteeringVectors:
    """The vectors with the residual norms of this model, so that they have a strength.

    Raises:
        BadVectors: vectors of another width, or of another model.
        BadSteeringInput: no texts.
        UnknownHook: a hook that the model does not have.
    """
    vectors.check_model(lm)
    norms = measured_norms(lm, vectors.hooks, texts)
    about = vectors.about.model_copy(
        update={
            "norm_hooks": norms.hooks,
            "model": vectors.about.model or model_identity(lm),
        }
    )
    return replace(vectors, norm_L=norms.median_L, about=about)
