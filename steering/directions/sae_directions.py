"""Directions that an SAE's decoder holds: rows, and differences of latents. A torch module.

Shape suffixes: N = texts, T = tokens, M = tokens at once, F = latents, D = width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

import torch
from pydantic import JsonValue
from torch import Tensor

from sae.language_model import LanguageModel
from sae.sae_spec import BadSae
from sae.stream_errors import UnknownHook
from sae.trained_sae import TrainedSae
from steering.directions.contrast_spec import ReadPosition
from steering.directions.contrasting import text_sha256
from steering.directions.measured_norms import measured_norms
from steering.directions.pooled_reading import NormMeter, how_read, norm_hook
from steering.directions.positions import read_at
from steering.errors import BadSteeringInput
from steering.reading import read_activations
from steering.vectors import About, SteeringVectors, model_identity

__all__ = ["sae_latent_vectors", "sae_mean_difference"]

logger = logging.getLogger(__name__)

TOKENS_AT_ONCE = 1024
"""Tokens encoded together: [tokens, latents] float32 of a wide SAE is what takes memory."""


def sae_latent_vectors(
    lm: LanguageModel,
    sae: TrainedSae,
    latents: Mapping[int, float] | Sequence[int],
    hook: str,
    texts: Sequence[str],
) -> SteeringVectors:
    """The decoder row of a latent, or a weighted sum of some.

    Args:
        latents: numbers, each counting 1, or number to weight (negative to steer away).
        hook: where it is to be added.
        texts: the residual norm is measured over their tokens.

    Raises:
        BadSteeringInput: no such latent, or no texts.
        BadSae: an SAE of another width or hook.
    """
    weights = dict(latents) if isinstance(latents, Mapping) else dict.fromkeys(latents, 1.0)
    _check_sae(lm, sae, hook)
    bad = [latent for latent in weights if not 0 <= latent < sae.d_sae]
    if not weights or bad or not texts:
        raise BadSteeringInput(
            f"latents {list(weights)} of an SAE with {sae.d_sae}, and {len(texts)} texts; give at "
            f"least one latent of 0 to {sae.d_sae - 1}, and one text to measure norms by"
        )
    norms = measured_norms(lm, [hook], texts)
    rows_FD = sae.W_dec_FD[list(weights)].float().cpu()
    vector_D = torch.tensor(list(weights.values())) @ rows_FD
    about = About(
        formula="sae_latent",
        maths="v = sum_i c_i W_dec[i]",
        sign_rule="as the decoder row points: towards more of the latent, for positive weights",
        model=model_identity(lm),
        norm_hooks=norms.hooks,
        parents={"sae": _sae_sha256(sae), "norm_texts": text_sha256(texts)},
        details={"sae": sae.label, "latents": {str(n): float(w) for n, w in weights.items()}},
    )
    return SteeringVectors(vector_D.unsqueeze(0), (hook,), norms.median_L, about)


def sae_mean_difference(
    lm: LanguageModel,
    sae: TrainedSae,
    positive: Sequence[str],
    negative: Sequence[str],
    hook: str,
    pooling: ReadPosition = "mean",
    *,
    read_hook: str | None = None,
    num_latents: int | None = None,
    max_tokens: int = 512,
) -> SteeringVectors:
    """Difference of the sides' mean latents, decoded: what of a shift the SAE can name.

    Args:
        pooling: latents are averaged over a text's tokens (`mean`), or taken at one of them.
        read_hook: where the SAE reads; the write hook if not given.
        num_latents: keep only so many latents, those that differ most; all if not given.

    Raises:
        BadSteeringInput: an empty side, or pooling `max`.
        BadSae: an SAE of another width or hook.
    """
    read = read_hook or hook
    _check_sae(lm, sae, read)
    if not positive or not negative or pooling == "max":
        raise BadSteeringInput(
            f"{len(positive)} positive and {len(negative)} negative texts read by {pooling!r}; "
            "give at least one of each, and pooling mean, last, first or an index"
        )
    norms = NormMeter([norm_hook(hook)])
    sums_2F = torch.zeros((2, sae.d_sae), dtype=torch.float64)
    texts, wanted = [*positive, *negative], list(dict.fromkeys([read, *norms.hooks]))
    for batch, acts in read_activations(lm, texts, wanted, max_tokens=max_tokens):
        norms.add(acts, batch.is_text_NT)
        latents_NF = _pooled_latents(sae, acts[read], batch.is_text_NT, pooling)
        side_N = (torch.tensor(batch.rows) >= len(positive)).long()
        sums_2F.index_add_(0, side_N, latents_NF.double().cpu())
    shift_F = sums_2F[0] / len(positive) - sums_2F[1] / len(negative)
    vector_D, largest = _decoded(sae, shift_F, num_latents)
    about = About(
        formula="sae_mean_difference",
        maths="v = (mean f+ - mean f-) W_dec (AxBench, arXiv:2501.17148)",
        sign_rule="from the mean latents of the negative side to those of the positive",
        **how_read(lm, (read,), pooling, norms),
        parents={"sae": _sae_sha256(sae), "texts": text_sha256(positive, negative)},
        details={
            "sae": sae.label,
            "num_latents": num_latents or int((shift_F != 0).sum()),
            "largest": largest,
        },
    )
    return SteeringVectors(vector_D.unsqueeze(0), (hook,), norms.median_L, about)


def _decoded(
    sae: TrainedSae, shift_F: Tensor, num_latents: int | None
) -> tuple[Tensor, dict[str, JsonValue]]:
    """A shift of latents as a direction [D], and its ten largest by latent."""
    order = shift_F.abs().argsort(descending=True)
    largest: dict[str, JsonValue] = {str(int(n)): float(shift_F[n]) for n in order[:10]}
    kept_F = shift_F.clone()
    if num_latents is not None:
        kept_F[order[num_latents:]] = 0
    return kept_F.float() @ sae.W_dec_FD.float().cpu(), largest


def _pooled_latents(
    sae: TrainedSae, acts_NTD: Tensor, is_text_NT: Tensor, pooling: ReadPosition
) -> Tensor:
    """[N, F]; of a mean, latents are averaged, not activations: encoding is not linear."""
    if pooling != "mean":
        return sae.encode(read_at(acts_NTD, is_text_NT, pooling))
    mask_NT = is_text_NT.to(acts_NTD.device)
    text_M = torch.arange(len(acts_NTD), device=mask_NT.device).unsqueeze(1).expand_as(mask_NT)
    own_M, acts_MD = text_M[mask_NT], acts_NTD[mask_NT]
    sums_NF = torch.zeros((len(acts_NTD), sae.d_sae), device=acts_NTD.device)
    for first in range(0, len(own_M), TOKENS_AT_ONCE):
        some = slice(first, first + TOKENS_AT_ONCE)
        sums_NF.index_add_(0, own_M[some], sae.encode(acts_MD[some].float()).to(sums_NF))
    return sums_NF / mask_NT.sum(dim=1, keepdim=True)


def _check_sae(lm: LanguageModel, sae: TrainedSae, hook: str) -> None:
    """Raises BadSae, UnknownHook."""
    if sae.d_in != (width := lm.d_in(hook)):
        raise BadSae(
            f"{sae.label} reads activations {sae.d_in} wide, and {hook!r} has {width}; take an SAE "
            "of this model and hook"
        )
    if sae.hook is None:
        return
    try:
        trained_at = lm.path_of(sae.hook)
    except UnknownHook:
        logger.warning("%s says it was trained at %r, which this model lacks", sae.label, sae.hook)
        return
    if trained_at != lm.path_of(hook):
        raise BadSae(
            f"{sae.label} was trained at {sae.hook}, not at {hook!r}; read there (read_hook="
            f"{sae.hook!r}) and add where you like"
        )


def _sae_sha256(sae: TrainedSae) -> str:
    weights = sae.W_dec_FD.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(weights.tobytes()).hexdigest()
