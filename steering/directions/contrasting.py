"""Directions from texts on two sides of a contrast. A torch module.

Shape suffixes: P = positive texts, N = negative texts, L = hooks, D = width.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.directions.contrast_methods import Array, ContrastMethod, contrast_method
from steering.directions.contrast_spec import ReadPosition
from steering.directions.pooled_reading import (
    NormMeter,
    PooledBatch,
    class_sums,
    how_read,
    norm_hook,
    read_hooks_of,
    read_pooled_batches,
)
from steering.errors import BadSteeringInput
from steering.vectors import About, SteeringVectors

__all__ = ["contrast", "text_sha256"]

MAX_ROWS_BYTES = 1 << 29
"""Rows of texts beyond this lie in a temporary file, mapped into memory."""


def contrast(
    lm: LanguageModel,
    positive: Sequence[str],
    negative: Sequence[str],
    hooks: Sequence[str],
    method: str = "mean_difference",
    pooling: ReadPosition = "last",
    *,
    read_hooks: Sequence[str] | None = None,
    max_tokens: int = 512,
) -> SteeringVectors:
    """A direction a hook from the negative texts to the positive ones, in one pass over both.

    Args:
        positive, negative: for methods that take pairs, text i of one belongs to text i of the
            other. They are read as they are: no chat template, BOS first where there is one.
        hooks: where the vectors are to be added.
        method: a formula id of `steering.directions.method_names()`.
        pooling: which of a text's tokens are read.
        read_hooks: where each vector is read; the write hooks themselves if not given.

    Raises:
        BadSteeringInput: an unknown method, an empty side, sides that are no pairs, an empty text.
        UnknownHook: a hook that the model does not have.
    """
    chosen = contrast_method(method)
    _check_sides(positive, negative, chosen)
    read = read_hooks_of(hooks, read_hooks)
    norms = NormMeter([norm_hook(hook) for hook in hooks])
    texts, unique = [*positive, *negative], list(dict.fromkeys(read))
    batches = read_pooled_batches(lm, texts, unique, pooling, norms, max_tokens=max_tokens)
    by_hook = _directions(chosen, batches, unique, len(positive), len(negative))
    about = About(
        formula=chosen.formula,
        maths=chosen.maths,
        sign_rule=chosen.sign_rule,
        **how_read(lm, read, pooling, norms),
        parents={"texts": text_sha256(positive, negative)},
        details={
            "num_positive": len(positive),
            "num_negative": len(negative),
            "num_tokens": norms.num_tokens,
        },
    )
    vectors = [torch.from_numpy(by_hook[hook]).float() for hook in read]
    return SteeringVectors(torch.stack(vectors), tuple(hooks), norms.median_L, about)


def _directions(
    method: ContrastMethod,
    batches: Iterator[PooledBatch],
    hooks: Sequence[str],
    num_positive: int,
    num_negative: int,
) -> dict[str, Array]:
    """[D] a hook; texts' own vectors are held only for methods that need them."""
    if method.needs_rows:
        with _all_rows(batches, hooks, num_positive + num_negative) as rows:
            sides = {hook: np.split(rows[hook].numpy(), [num_positive]) for hook in hooks}
            return {hook: method.direction(*sides[hook]) for hook in hooks}
    side_of_text = [0] * num_positive + [1] * num_negative
    sums, count_C = class_sums(batches, hooks, side_of_text, 2)
    means = {hook: (sums[hook] / count_C.unsqueeze(1)).numpy() for hook in hooks}
    return {hook: method.direction(means[hook][:1], means[hook][1:]) for hook in hooks}


def text_sha256(*sides: Sequence[str]) -> str:
    """Of lists of texts, in their order."""
    text = json.dumps([list(side) for side in sides])
    return hashlib.sha256(text.encode()).hexdigest()


def _check_sides(positive: Sequence[str], negative: Sequence[str], method: ContrastMethod) -> None:
    for side, texts in (("positive", positive), ("negative", negative)):
        if isinstance(texts, str) or not texts:
            what = "is one string" if isinstance(texts, str) else "is empty"
            raise BadSteeringInput(f"the {side} side {what}; give a list with at least one text")
    if method.needs_pairs and len(positive) != len(negative):
        raise BadSteeringInput(
            f"{method.formula} takes pairs, and there are {len(positive)} positive and "
            f"{len(negative)} negative texts; give as many of both, or use mean_difference"
        )


@contextmanager
def _all_rows(
    batches: Iterator[PooledBatch], hooks: Sequence[str], num_texts: int
) -> Iterator[dict[str, Tensor]]:
    """Each text's vector, [texts, D] float32 a hook, in the order of the texts."""
    with tempfile.TemporaryDirectory(prefix="saeq-rows-") as folder:
        rows: dict[str, Tensor] = {}
        for batch in batches:
            for hook in hooks:
                vector_ND = batch.vector_ND_by_hook[hook]
                if hook not in rows:
                    size = (num_texts, vector_ND.shape[1])
                    on_disk = 4 * size[0] * size[1] * len(hooks) > MAX_ROWS_BYTES
                    path = Path(folder, str(len(rows))) if on_disk else None
                    rows[hook] = _room(size, path)
                rows[hook][batch.row_N] = vector_ND
        yield rows


def _room(size: tuple[int, int], path: Path | None) -> Tensor:
    if path is None:
        return torch.empty(size)
    numbers = size[0] * size[1]
    return torch.from_file(str(path), shared=True, size=numbers, dtype=torch.float32).view(size)
