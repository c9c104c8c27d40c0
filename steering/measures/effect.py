"""How much of what was wanted an answer has, within 0 and 1: which measure, and its making."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from steering.directions import ContrastSpec
from steering.measures.effects.meter import EffectMeter

__all__ = ["EffectMeter", "EffectSpec", "open_effect"]


class EffectSpec(BaseModel):
    """What measures the effect; exactly one of contrast, embedding and classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    contrast: ContrastSpec | None = None
    """P(positive side), by a logistic regression over MiniLM embeddings of these texts."""
    embedding: str | None = None
    """Folder of a finished `embedding`: how much nearer an answer is to `group` than to others."""
    group: str | None = None
    """Of the embedding."""
    classifier: str | None = None
    """Hub id or folder of a sequence classifier of transformers: P(`label`)."""
    label: str | None = None
    """Of the classifier."""

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        measures = ("contrast", "embedding", "classifier")
        given = [name for name in measures if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(measures)}; got {' and '.join(given) or 'none'}"
            )
        for measure, part in (("embedding", "group"), ("classifier", "label")):
            if (getattr(self, measure) is None) != (getattr(self, part) is None):
                raise ValueError(
                    f"{measure} and {part} go together; got {measure}="
                    f"{getattr(self, measure)!r}, {part}={getattr(self, part)!r}"
                )
        return self


def open_effect(spec: EffectSpec) -> EffectMeter:
    """Load or fit what measures the effect.

    Raises:
        BadSteeringInput: texts, group or label are not there, or cannot be told apart.
        BadStyleData: an embedding or encoder cannot be loaded.
    """
    if spec.embedding is not None:
        from steering.measures.effects.embedding_margin import open_embedding_margin

        return open_embedding_margin(spec.embedding, spec.group or "")
    if spec.classifier is not None:
        from steering.measures.effects.text_classifier import open_text_classifier

        return open_text_classifier(spec.classifier, spec.label or "")
    from steering.directions.contrast_pairs import read_contrast
    from steering.measures.effects.contrast_classifier import fit_contrast_classifier

    assert spec.contrast is not None
    texts = read_contrast(spec.contrast)
    return fit_contrast_classifier(
        (texts.train.positive, texts.train.negative),
        (texts.validation.positive, texts.validation.negative),
    )
