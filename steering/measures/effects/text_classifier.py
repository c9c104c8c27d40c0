"""Effect by any text classifier of transformers: the probability of one of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.measures.effects.meter import Array

__all__ = ["TextClassifier", "open_text_classifier"]

BATCH_TEXTS = 16
MAX_TOKENS = 512


@dataclass(frozen=True)
class TextClassifier:
    """P(label) of a text."""

    model: Any
    tokenizer: Any
    name: str
    label: str
    place: int

    def score(self, texts: Sequence[str]) -> Array:
        """P(label), [N], float64; 0 for an empty text."""
        found_N = np.zeros(len(texts))
        rows = [row for row, text in enumerate(texts) if text.strip()]
        for first in range(0, len(rows), BATCH_TEXTS):
            some = rows[first : first + BATCH_TEXTS]
            found_N[some] = self._probability([texts[row] for row in some])
        return found_N

    def _probability(self, texts: list[str]) -> Array:
        import torch

        limit = min(
            MAX_TOKENS, getattr(self.model.config, "max_position_embeddings", MAX_TOKENS) - 2
        )
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self.model.device)
        with torch.inference_mode():
            logits_NC = self.model(**batch).logits.float()
        many = getattr(self.model.config, "problem_type", None) == "multi_label_classification"
        single = many or logits_NC.shape[1] == 1
        chance_NC = logits_NC.sigmoid() if single else logits_NC.softmax(dim=-1)
        found: Array = chance_NC[:, self.place].cpu().numpy().astype(np.float64)
        return found

    @property
    def record(self) -> Mapping[str, Any]:
        """Which label of which classifier."""
        return {
            "effect": "probability of a classifier",
            "classifier": self.name,
            "label": self.label,
        }


def open_text_classifier(name: str, label: str) -> TextClassifier:
    """Load a sequence classifier by hub name or folder.

    Raises:
        BadSteeringInput: it cannot be loaded, or has no such label.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from sae.model_files import quiet_transformers

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForSequenceClassification.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())
        raise BadSteeringInput(
            f"classifier {name!r} cannot be loaded: {said}; name a folder or hub id of a sequence "
            "classifier, or measure the effect by contrast texts: effect: {contrast: ...}"
        ) from error
    labels = {str(text): int(place) for place, text in model.config.id2label.items()}
    if label not in labels:
        near = get_close_matches(label, labels, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadSteeringInput(
            f"label {label!r} is unknown to {name!r}; it has {', '.join(labels)}.{hint}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TextClassifier(model.to(device).eval(), tokenizer, name, label, labels[label])
