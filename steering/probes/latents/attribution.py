"""Which latents, at which tokens, make the model say yes: gradient times activation.

For a metric m (logit of yes less that of no) and a latent f at a token: f * dm/df, where f moves
the activation by its decoder row and the SAE's error stays. The gradient is exact, through all of
the model behind the hook (attribution patching towards zero; Syed et al. 2023, arXiv 2310.10348).

A torch module. Shape suffixes: N = prompts of a batch, T = tokens, D = width, F = latents, S =
tokens of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.probes.features.pool import joined
from steering.probes.features.sae_hooks import path_of_sae
from steering.probes.features.sparse import csr_of, sparse_rows
from steering.probes.features.store import Arrays
from steering.probes.latents.yes_no import (
    Prompt,
    YesNoSpec,
    answer_tokens,
    encode_questions,
    logit_difference_N,
    padded,
)

__all__ = ["Attribution", "LatentShare", "attribute_yes_no"]

ENCODED_TOKENS = 256
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class LatentShare:
    """What a latent adds to the logit difference, to first order, summed over a text's tokens."""

    latent: int
    mean: float
    """Over all texts."""
    mean_positive: float
    mean_negative: float


@dataclass(frozen=True)
class Attribution:
    """Of each token of each text and each latent that fires there."""

    difference_N: Floats
    """Logit of yes less that of no, by text."""
    matrix_SF: Any
    """scipy CSR, float32: tokens of the texts, text after text."""
    offset_N1: Ints
    """Rows of text n are offset_N1[n] to offset_N1[n + 1]."""
    chars: tuple[tuple[tuple[int, int], ...], ...]
    """For each text the characters that each of its rows stands for."""

    def by_text(self) -> Any:
        """Summed over the tokens of each text, CSR [N, F]."""
        from scipy.sparse import csr_matrix

        num_texts = len(self.difference_N)
        rows = np.repeat(np.arange(num_texts), np.diff(self.offset_N1))
        ones = np.ones(len(rows), dtype=np.float32)
        shape = (num_texts, len(rows))
        return csr_matrix((ones, (rows, np.arange(len(rows)))), shape=shape) @ self.matrix_SF

    def top(self, y_N: np.ndarray[Any, Any], count: int = 20) -> list[LatentShare]:
        """Latents by how far their shares in positive and negative texts are apart.

        Args:
            y_N: bool, which texts have the label; both kinds are needed.
        """
        by_text = self.by_text()
        positive_F = np.asarray(by_text[y_N].mean(axis=0)).ravel()
        negative_F = np.asarray(by_text[~y_N].mean(axis=0)).ravel()
        mean_F = np.asarray(by_text.mean(axis=0)).ravel()
        order = np.argsort(-np.abs(positive_F - negative_F), kind="stable")[:count]
        return [
            LatentShare(k, float(mean_F[k]), float(positive_F[k]), float(negative_F[k]))
            for k in order.tolist()
            if positive_F[k] or negative_F[k]
        ]

    def tokens_of(self, text: int, latent: int) -> list[tuple[tuple[int, int], float]]:
        """For each token of a text its characters and the latent's attribution there."""
        rows = slice(self.offset_N1[text], self.offset_N1[text + 1])
        values = self.matrix_SF[rows, latent].toarray().ravel().tolist()
        return list(zip(self.chars[text], values, strict=True))


def attribute_yes_no(
    lm: LanguageModel,
    sae: TrainedSae,
    texts: Sequence[str],
    spec: YesNoSpec,
    *,
    hook: str | None = None,
    batch_tokens: int = 2048,
) -> Attribution:
    """Attribution of the model's yes/no logit difference to the latents at the texts' tokens.

    Memory: a batch's activations for the backward pass, and `ENCODED_TOKENS` rows of latents.

    Raises:
        BadSteeringInput: the SAE does not fit its hook, or no answer is one token.
    """
    path = path_of_sae(lm, sae, hook)
    yes, no = answer_tokens(lm, spec)
    prompts = encode_questions(lm, texts, spec)
    rows: list[Arrays | None] = [None] * len(prompts)
    difference_N = np.zeros(len(prompts))
    for places, ids_NT, last_N in padded(prompts, batch_tokens):
        x_NTD, grad_NTD, m_N = _gradients(lm, path, ids_NT, last_N, yes, no)
        for place, row in enumerate(places):
            of_text = list(prompts[row].text_places)
            rows[row] = _rows(sae, x_NTD[place, of_text], grad_NTD[place, of_text])
            difference_N[row] = float(m_N[place])
    return _put_together(prompts, [one for one in rows if one is not None], difference_N, sae.d_sae)


def _put_together(
    prompts: Sequence[Prompt], rows: Sequence[Arrays], difference_N: Floats, num_latents: int
) -> Attribution:
    offset_N1 = np.zeros(len(prompts) + 1, dtype=np.int64)
    np.cumsum([len(prompt.text_places) for prompt in prompts], out=offset_N1[1:])
    matrix_SF = csr_of(joined(rows), num_latents)
    return Attribution(difference_N, matrix_SF, offset_N1, tuple(p.chars for p in prompts))


def _gradients(
    lm: LanguageModel, path: str, ids_NT: Tensor, last_N: Tensor, yes: list[int], no: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Activations at the hook, the gradient of the logit difference there, and the difference."""
    leaves: list[Tensor] = []

    def begin_here(h_NTD: Tensor) -> Tensor:
        leaves.append(h_NTD.detach().clone().requires_grad_())
        return leaves[0]

    # lm.forward runs in inference mode, which no gradient gets through.
    with lm.uncompiled(), lm.hooked([(path, begin_here)]), torch.enable_grad():
        ids_NT = ids_NT.to(lm.device)
        logits_NTV = lm.model(input_ids=ids_NT, use_cache=False).logits
        logits_NV = logits_NTV[torch.arange(len(ids_NT)), last_N]
        difference_N = logit_difference_N(logits_NV, yes, no)
        (grad_NTD,) = torch.autograd.grad(difference_N.sum(), leaves)
    return leaves[0].detach(), grad_NTD, difference_N.detach()


def _rows(sae: TrainedSae, x_TD: Tensor, grad_TD: Tensor) -> Arrays:
    """Attributions of some tokens, sparse: zero where the latent is."""
    parts = []
    weight = sae.W_dec_FD
    x_parts, grad_parts = torch.split(x_TD, ENCODED_TOKENS), torch.split(grad_TD, ENCODED_TOKENS)
    for x_CD, grad_CD in zip(x_parts, grad_parts, strict=True):
        latents_CF = sae.encode(x_CD).clone()
        # Through the SAE's own decoder: some scale what they decode by each token's norm.
        with torch.enable_grad():
            leaf_CF = latents_CF.requires_grad_()
            decoded_CD = sae.sae.decode(leaf_CF)
            (slope_CF,) = torch.autograd.grad((decoded_CD * grad_CD.to(weight)).sum(), [leaf_CF])
        parts.append(sparse_rows((leaf_CF * slope_CF).detach()))
    return joined(parts)
