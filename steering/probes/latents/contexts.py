"""Where a latent fires most: tokens with their activations, to be read by people.

A torch module. Shape suffixes: N = texts of a batch, T = tokens, S = tokens of the texts, F =
latents, K = those that are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.probes.data import LabelledTexts
from steering.probes.features.sae_hooks import path_of_sae
from steering.probes.features.spec import FeatureSpec
from steering.probes.features.table import FeatureTable
from steering.reading import read_activations

__all__ = ["Context", "texts_by_latent", "top_contexts"]

ENCODED_TOKENS = 512


@dataclass(frozen=True)
class Context:
    """A stretch of a text around the token where a latent is largest."""

    latent: int
    text: int
    """Number of the text in the data."""
    item: str
    labels: tuple[str, ...]
    """That the text has."""
    peak: int
    """Place of that token in `tokens`."""
    tokens: tuple[str, ...]
    """Pieces of the text; together they are the text, gaps between tokens included."""
    values: tuple[float, ...]
    """The latent at each token."""
    is_cut: tuple[bool, bool]
    """Whether the text goes on before, and behind."""

    @property
    def value(self) -> float:
        """The latent where it is largest."""
        return self.values[self.peak]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def texts_by_latent(
    table: FeatureTable, spec: FeatureSpec, latents: Sequence[int], top: int = 10
) -> dict[int, list[int]]:
    """For each latent the texts in which it is largest, by a table of latents, largest first.

    With pooling `mean` these are the texts with most of it, else those with the largest value;
    texts without any are left out.
    """
    columns = table.matrix(spec)[:, list(latents)].tocsc()
    text_of = table.text_of(spec)
    found = {}
    for place, latent in enumerate(latents):
        where = slice(columns.indptr[place], columns.indptr[place + 1])
        largest: dict[int, float] = {}
        for row, value in zip(columns.indices[where], columns.data[where], strict=True):
            text = int(text_of[row])
            if value > largest.get(text, 0.0):
                largest[text] = float(value)
        found[latent] = sorted(largest, key=lambda text: (-largest[text], text))[:top]
    return found


def top_contexts(
    lm: LanguageModel,
    sae: TrainedSae,
    labelled: LabelledTexts,
    texts: Mapping[int, Sequence[int]],
    *,
    hook: str | None = None,
    window: int = 16,
    max_tokens: int = 512,
    batch_tokens: int = 4096,
) -> dict[int, list[Context]]:
    """Contexts of latents in texts that are given for each; only those texts are read again.

    Args:
        texts: latent to numbers of texts, as `texts_by_latent` gives them; the contexts come in
            order of their largest value. Texts in which the latent is zero give none.
        window: tokens to either side of the largest one.
        max_tokens: as when the features were extracted.

    Raises:
        BadSteeringInput: the SAE does not fit its hook.
    """
    path = path_of_sae(lm, sae, hook)
    latents = list(texts)
    wanted = sorted({text for some in texts.values() for text in some})
    asked = {text: {latent for latent in latents if text in texts[latent]} for text in wanted}
    found: dict[int, list[Context]] = {latent: [] for latent in latents}
    for batch, acts in read_activations(
        lm,
        [labelled.texts[text] for text in wanted],
        [path],
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
    ):
        for place, row in enumerate(batch.rows):
            of_text_T = batch.is_text_NT[place]
            acts_TD = acts[path][place][of_text_T.to(acts[path].device)]
            values_TK = torch.cat(
                [
                    sae.encode(part)[:, latents].cpu()
                    for part in torch.split(acts_TD, ENCODED_TOKENS)
                ]
            ).numpy()
            chars = [batch.spans[place][at] for at in of_text_T.nonzero().squeeze(1).tolist()]
            text = wanted[row]
            for column, latent in enumerate(latents):
                if latent in asked[text] and values_TK[:, column].max() > 0:
                    found[latent].append(
                        _context(labelled, text, latent, chars, values_TK[:, column], window)
                    )
    return {k: sorted(some, key=lambda one: (-one.value, one.text)) for k, some in found.items()}


def _context(
    labelled: LabelledTexts,
    text: int,
    latent: int,
    chars: Sequence[tuple[int, int]],
    values_T: np.ndarray[Any, Any],
    window: int,
) -> Context:
    peak = int(values_T.argmax())
    start, end = max(0, peak - window), min(len(chars), peak + window + 1)
    whole = labelled.texts[text]
    # From one token's start to the next one's: what stands between tokens is shown with the first.
    edges = [first for first, _ in chars[start:end]] + [chars[end - 1][1]]
    if end < len(chars):
        edges[-1] = chars[end][0]
    names = zip(labelled.label_names, labelled.y_NL[text], strict=True)
    return Context(
        latent=latent,
        text=text,
        item=labelled.items[text],
        labels=tuple(name for name, has_it in names if has_it),
        peak=peak - start,
        tokens=tuple(whole[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)),
        values=tuple(float(value) for value in values_T[start:end]),
        is_cut=(start > 0, end < len(chars)),
    )
