"""A vector for each style attribute: what the model holds after a sentence about it.

A torch module. Shape suffixes: A = attributes, L = hooks, D = width.

A forward pass has no temperature: the vectors are the same whatever answers are sampled with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sae.language_model import LanguageModel
from steering.directions.addressing import addressed
from steering.directions.contrast_spec import ReadPosition
from steering.directions.contrasting import text_sha256
from steering.directions.pooled_reading import (
    NormMeter,
    how_read,
    norm_hook,
    read_hooks_of,
    read_pooled_batches,
)
from steering.errors import BadSteeringInput
from steering.styles.catalogue import Catalogue
from steering.vectors import About
from steering.vectors_by_attribute import AttributeVectors

__all__ = ["DEFAULT_TEMPLATE", "attribute_sentences", "attribute_vectors"]

DEFAULT_TEMPLATE = "You use {attribute}."


def attribute_vectors(
    lm: LanguageModel,
    attributes: Sequence[str] | Catalogue,
    hooks: Sequence[str],
    *,
    template: str = DEFAULT_TEMPLATE,
    pooling: ReadPosition = "last",
    read_hooks: Sequence[str] | None = None,
) -> AttributeVectors:
    """Vectors for all attributes, in one pass over their sentences.

    Args:
        attributes: texts, which are their ids, too; or a catalogue, whose hash is kept. A sentence
            about "The author" is turned to "You"; anything else goes into the template.
        template: with `{attribute}` in it.
        pooling: which of a sentence's tokens are read.

    Raises:
        BadSteeringInput: no attribute, one twice, or a template without its place.
        UnknownHook: a hook that the model does not have.
    """
    ids, sentences = attribute_sentences(attributes, template)
    read = read_hooks_of(hooks, read_hooks)
    norms = NormMeter([norm_hook(hook) for hook in hooks])
    unique = list(dict.fromkeys(read))
    raw_ALD = torch.empty((len(sentences), len(read), 0))
    for batch in read_pooled_batches(lm, sentences, unique, pooling, norms):
        rows_NLD = torch.stack([batch.vector_ND_by_hook[hook] for hook in read], dim=1)
        if not raw_ALD.numel():
            raw_ALD = torch.empty((len(sentences), *rows_NLD.shape[1:]))
        raw_ALD[batch.row_N] = rows_NLD
    about = About(
        formula="attribute_vs_mean",
        maths="v_a = h(sentence of a) - mean over a' of h(sentence of a')",
        sign_rule="from the mean of all attributes to this one",
        **how_read(lm, read, pooling, norms),
        parents={"sentences": text_sha256(sentences)},
        catalogue_sha256=attributes.sha256 if isinstance(attributes, Catalogue) else None,
        details={"template": template, "num_attributes": len(ids), "num_tokens": norms.num_tokens},
    )
    return AttributeVectors(raw_ALD, ids, sentences, tuple(hooks), norms.median_L, about)


def attribute_sentences(
    attributes: Sequence[str] | Catalogue, template: str = DEFAULT_TEMPLATE
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the attributes, and what is said to the model about each. Raises BadSteeringInput."""
    if isinstance(attributes, Catalogue):
        texts = [one.text for one in attributes.attributes]
        return attributes.ids, tuple(addressed(text, template) for text in texts)
    twice = sorted({text for text in attributes if list(attributes).count(text) > 1})
    if not attributes or twice or isinstance(attributes, str):
        said = (
            f"attributes come twice: {', '.join(twice[:5])}" if twice else "no list of attributes"
        )
        raise BadSteeringInput(f"{said}; give each once, at least one")
    return tuple(attributes), tuple(addressed(text, template) for text in attributes)
