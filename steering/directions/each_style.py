"""A direction for each of several styles: its texts' mean against all others'. A torch module.

Shape suffixes: C = styles, L = hooks, D = width. Konen et al. 2024 (arXiv:2402.01618), equation 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from sae.language_model import LanguageModel
from steering.directions.contrast_spec import ReadPosition
from steering.directions.contrasting import text_sha256
from steering.directions.pooled_reading import (
    NormMeter,
    class_sums,
    how_read,
    norm_hook,
    read_hooks_of,
    read_pooled_batches,
)
from steering.errors import BadSteeringInput
from steering.vectors import About, SteeringVectors

__all__ = ["one_vs_rest"]


def one_vs_rest(
    lm: LanguageModel,
    texts: Sequence[str],
    labels: Sequence[str],
    hooks: Sequence[str],
    pooling: ReadPosition = "last",
    *,
    read_hooks: Sequence[str] | None = None,
    max_tokens: int = 512,
) -> dict[str, SteeringVectors]:
    """Vectors for each label, in one pass over the texts.

    Give training texts only: vectors that saw the texts they are tested on look better than they
    are.

    Raises:
        BadSteeringInput: lists of different length, or fewer than two labels.
        UnknownHook: a hook that the model does not have.
    """
    sizes = Counter(labels)
    if len(texts) != len(labels) or len(sizes) < 2:
        raise BadSteeringInput(
            f"{len(texts)} texts with {len(labels)} labels of {len(sizes)} kinds; give each text "
            "one, and at least two kinds"
        )
    names, read = sorted(sizes), read_hooks_of(hooks, read_hooks)
    norms = NormMeter([norm_hook(hook) for hook in hooks])
    unique = list(dict.fromkeys(read))
    batches = read_pooled_batches(lm, texts, unique, pooling, norms, max_tokens=max_tokens)
    classes = [names.index(label) for label in labels]
    sums, count_C = class_sums(batches, unique, classes, len(names))
    count_C1 = count_C.unsqueeze(1)
    own = {hook: sums[hook] / count_C1 for hook in unique}
    rest = {
        hook: (sums[hook].sum(dim=0) - sums[hook]) / (count_C1.sum() - count_C1) for hook in unique
    }
    found = {}
    for place, name in enumerate(names):
        about = About(
            formula="one_vs_rest",
            maths="v_s = mean(h | s) - mean(h | not s) (Konen et al. 2024, eq. 5)",
            sign_rule="from the mean of all other styles to that of this one",
            **how_read(lm, read, pooling, norms),
            parents={"texts": text_sha256(texts, labels)},
            details={"style": name, "num_texts": sizes[name], "num_rest": len(texts) - sizes[name]},
        )
        rows = torch.stack([own[hook][place] - rest[hook][place] for hook in read])
        found[name] = SteeringVectors(rows.float(), tuple(hooks), norms.median_L, about)
    return found
