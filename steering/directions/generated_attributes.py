"""A vector for each style attribute from answers that were asked to show it. A torch module.

Shape suffixes: A = attributes, R = draws, L = hooks, D = width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.directions.attributes import DEFAULT_TEMPLATE, attribute_sentences
from steering.directions.contrast_spec import ReadPosition
from steering.directions.contrasting import text_sha256
from steering.directions.generated_reading import answer_means, cosine_between_draws
from steering.directions.pooled_reading import NormMeter, how_read, norm_hook, read_hooks_of
from steering.generation import GenerationSpec
from steering.styles.catalogue import Catalogue
from steering.vectors import About
from steering.vectors_by_attribute import AttributeVectors

__all__ = ["generated_attribute_vectors"]


def generated_attribute_vectors(
    lm: LanguageModel,
    attributes: Sequence[str] | Catalogue,
    prompts: Sequence[str],
    hooks: Sequence[str],
    *,
    template: str = DEFAULT_TEMPLATE,
    draws: int = 4,
    spec: GenerationSpec | None = None,
    pooling: ReadPosition = "mean",
    read_hooks: Sequence[str] | None = None,
    keep: Path | None = None,
) -> AttributeVectors:
    """Vectors as `attribute_vectors` gives them, of answers in place of the sentences themselves.

    Each attribute's sentence stands before each prompt; answers are sampled `draws` times and read
    without the sentence. How alike the draws are is in the details: the mean over attributes of
    the cosine between draws, once what all attributes share is taken off.

    Args:
        keep: a .jsonl file that keeps answers over interruptions: attributes x prompts x draws of
            them take long.

    Raises:
        BadSteeringInput: attributes or prompts that mean nothing, or draws without any answer.
        UnknownHook: a hook that the model does not have.
    """
    spec = spec or GenerationSpec()
    ids, sentences = attribute_sentences(attributes, template)
    read = read_hooks_of(hooks, read_hooks)
    norms = NormMeter([norm_hook(hook) for hook in hooks])
    unique = list(dict.fromkeys(read))
    means, num_empty = answer_means(
        lm, prompts, sentences, unique, draws, spec, pooling, norms, keep
    )
    about = About(
        formula="generated_attribute_vs_mean",
        maths="v_a = mean h(answers | sentence of a) - mean over a' of the same, over draws",
        sign_rule="from the mean of all attributes to this one",
        **how_read(lm, read, pooling, norms),
        parents={"prompts": text_sha256(prompts, sentences)},
        catalogue_sha256=attributes.sha256 if isinstance(attributes, Catalogue) else None,
        seeds=(spec.seed,),
        details={
            "template": template,
            "num_attributes": len(ids),
            "draws": draws,
            "generation": spec.model_dump(mode="json"),
            "num_prompts": len(prompts),
            "num_empty": num_empty,
            "cosine_between_draws": {hook: _mean_cosine(means[hook]) for hook in unique},
        },
    )
    raw_ALD = torch.stack([means[hook].mean(dim=1) for hook in read], dim=1)
    return AttributeVectors(raw_ALD, ids, sentences, tuple(hooks), norms.median_L, about)


def _mean_cosine(mean_ARD: Tensor) -> float | None:
    centred_ARD = mean_ARD - mean_ARD.mean(dim=0)
    found = [cosine_between_draws(own_RD) for own_RD in centred_ARD]
    cosines = [one["mean"] for one in found if one is not None]
    return sum(cosines) / len(cosines) if cosines else None
