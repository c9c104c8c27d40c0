"""Directions from what the model says under an instruction and without it. A torch module.

Shape suffixes: L = hooks, D = width, R = draws.

Answers are sampled several times; each draw gives a direction, the result is their mean, and the
cosine between draws says how much of it is chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sae.language_model import LanguageModel
from steering.directions.contrast_spec import ReadPosition
from steering.directions.contrasting import text_sha256
from steering.directions.generated_reading import answer_means, cosine_between_draws
from steering.directions.pooled_reading import NormMeter, how_read, norm_hook, read_hooks_of
from steering.generation import GenerationSpec
from steering.vectors import About, SteeringVectors

__all__ = ["generated_vectors"]


def generated_vectors(
    lm: LanguageModel,
    prompts: Sequence[str],
    towards: str,
    hooks: Sequence[str],
    *,
    away: str = "",
    draws: int = 4,
    spec: GenerationSpec | None = None,
    pooling: ReadPosition = "mean",
    read_hooks: Sequence[str] | None = None,
    keep: Path | None = None,
) -> SteeringVectors:
    """A direction from the answers given under `away` to those given under `towards`.

    An instruction stands before each prompt while the model answers. It is gone when the answer is
    read, so that the direction is one of how things were said, not of having been told to.

    Args:
        towards, away: instructions such as "You use irony."; an empty one is none.
        draws: answers to each prompt and instruction.
        spec: sampling; its seed and the place of a row decide each draw.
        pooling: which of an answer's tokens are read.
        keep: a .jsonl file that keeps answers over interruptions.

    Raises:
        BadSteeringInput: no prompts, both instructions alike, several draws at temperature 0, or a
            draw without any answer on a side.
        UnknownHook: a hook that the model does not have.
    """
    spec = spec or GenerationSpec()
    read = read_hooks_of(hooks, read_hooks)
    norms = NormMeter([norm_hook(hook) for hook in hooks])
    unique = list(dict.fromkeys(read))
    sides = (towards, away)
    means, num_empty = answer_means(lm, prompts, sides, unique, draws, spec, pooling, norms, keep)
    by_draw = {hook: means[hook][0] - means[hook][1] for hook in unique}
    about = About(
        formula="generated_mean_difference",
        maths="v = mean over draws of (mean h(answers | towards) - mean h(answers | away))",
        sign_rule="from the answers under `away` to those under `towards`",
        **how_read(lm, read, pooling, norms),
        parents={"prompts": text_sha256(prompts, [towards, away])},
        seeds=(spec.seed,),
        details={
            "towards": towards,
            "away": away,
            "draws": draws,
            "generation": spec.model_dump(mode="json"),
            "num_prompts": len(prompts),
            "num_empty": num_empty,
            "cosine_between_draws": {hook: cosine_between_draws(by_draw[hook]) for hook in unique},
        },
    )
    vector_LD = torch.stack([by_draw[hook].mean(dim=0) for hook in read])
    return SteeringVectors(vector_LD, tuple(hooks), norms.median_L, about)
