"""What a reconstruction in place of the activation does to the language model's predictions.

Positions. Losses are taken where the activation was kept (no special token, not the first of a
context) and only there the activation is replaced by the reconstruction or by the mean. Zero
ablation replaces every position, as sae_lens and SAEBench do, so that `ce_recovered` can be
compared with theirs.

Shape suffixes: C = contexts, T = context length, D = d_in, V = vocabulary, N = kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from sae.activation_source import ActivationSource, Edit
from sae.memory import MAX_CLEAN_LOGIT_BYTES, MAX_LOGIT_BYTES

DEFAULT_CE_TOKENS = 2048
"""Kept held-out tokens over which losses are taken: each costs a whole forward pass."""


@dataclass(frozen=True)
class ContextBatch:
    """Some held-out contexts, few enough for their logits to fit."""

    tokens_CT: Tensor
    kept_CT: Tensor


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropy and mean KL(clean || edited) over kept tokens, in nats."""

    ce: float
    kl: float


@dataclass
class Baseline:
    """What is the same for every member of one hook."""

    clean: Losses
    zero: Losses
    mean: Losses
    clean_logits: list[Tensor] | None
    """Logits of each batch, where they are small enough to keep."""


_baselines: WeakKeyDictionary[ActivationSource, dict[tuple[str, int], Baseline]] = (
    WeakKeyDictionary()
)
_baselines_lock = Lock()


@torch.no_grad()
def downstream_metrics(
    reconstruct: Callable[[Tensor], Tensor],
    source: ActivationSource,
    hook: str,
    *,
    ce_tokens: int = DEFAULT_CE_TOKENS,
) -> dict[str, float]:
    """Cross-entropy and KL with the reconstruction in the model, against three baselines.

    Args:
        reconstruct: raw activations [N, D] to their reconstruction [N, D].
        hook: module whose output is replaced.
        ce_tokens: kept held-out tokens to use; whole contexts are taken until they are reached.

    Returns:
        `sae.metric_names.AT_THE_END`, losses in nats. `ce_recovered` is (zero - sae) / (zero -
        clean), `ce_recovered_mean` the same with the mean activation instead of zero.
    """
    batches = list(context_batches(source, ce_tokens))
    baseline = _baseline(source, hook, batches, ce_tokens)
    edited = _losses(source, batches, hook, _replacing(reconstruct), baseline.clean_logits)
    return {
        "ce_clean": baseline.clean.ce,
        "ce_sae": edited.ce,
        "ce_zero": baseline.zero.ce,
        "ce_mean": baseline.mean.ce,
        "ce_recovered": _recovered(baseline.zero.ce, edited.ce, baseline.clean.ce),
        "ce_recovered_mean": _recovered(baseline.mean.ce, edited.ce, baseline.clean.ce),
        "kl_sae": edited.kl,
        "kl_zero": baseline.zero.kl,
    }


def num_contexts_for(kept_CT: Tensor, num_tokens: int) -> int:
    """How many contexts, from the first, hold `num_tokens` kept tokens; all if they do not."""
    reached_C = kept_CT.sum(dim=-1).cumsum(dim=0) >= num_tokens
    return int((~reached_C).sum().clamp(max=len(kept_CT) - 1)) + 1


def context_batches(source: ActivationSource, num_tokens: int) -> Iterator[ContextBatch]:
    """The first held-out contexts that hold `num_tokens` kept tokens, in batches that fit."""
    held_out = source.held_out
    num_contexts = num_contexts_for(held_out.kept_CT, num_tokens)
    context, vocabulary = held_out.tokens_CT.shape[-1], _vocabulary(source)
    size = max(1, MAX_LOGIT_BYTES // (4 * context * vocabulary))
    for first in range(0, num_contexts, size):
        chosen = slice(first, min(first + size, num_contexts))
        yield ContextBatch(held_out.tokens_CT[chosen], held_out.kept_CT[chosen])


def _vocabulary(source: ActivationSource) -> int:
    config: Any = source.language_model.model.config
    return int(config.get_text_config().vocab_size)


EditOfBatch = Callable[[ContextBatch], Edit]


def _replacing(reconstruct: Callable[[Tensor], Tensor]) -> EditOfBatch:
    def edit_of(batch: ContextBatch) -> Edit:
        def edit(acts_CTD: Tensor) -> Tensor:
            kept_CT = batch.kept_CT.to(acts_CTD.device)
            edited_CTD = acts_CTD.clone()
            replaced_ND = reconstruct(acts_CTD[kept_CT].float())
            edited_CTD[kept_CT] = replaced_ND.to(acts_CTD.device, acts_CTD.dtype)
            return edited_CTD

        return edit

    return edit_of


def _zero(batch: ContextBatch) -> Edit:
    del batch
    return torch.zeros_like


def _baseline(
    source: ActivationSource, hook: str, batches: list[ContextBatch], ce_tokens: int
) -> Baseline:
    # Held while computing: of two members that finish at once the second waits for the first's.
    with _baselines_lock:
        known = _baselines.setdefault(source, {})
        if (hook, ce_tokens) not in known:
            known[hook, ce_tokens] = _compute_baseline(source, hook, batches)
        return known[hook, ce_tokens]


def _compute_baseline(source: ActivationSource, hook: str, batches: list[ContextBatch]) -> Baseline:
    mean_D = source.held_out.activations(hook).mean(dim=0)
    num_logits = sum(batch.tokens_CT.numel() for batch in batches) * _vocabulary(source)
    clean_logits = None
    if 4 * num_logits <= MAX_CLEAN_LOGIT_BYTES:
        clean_logits = [source.language_model.logits(batch.tokens_CT) for batch in batches]
    return Baseline(
        clean=_losses(source, batches, hook, None, clean_logits),
        zero=_losses(source, batches, hook, _zero, clean_logits),
        mean=_losses(
            source, batches, hook, _replacing(lambda x_ND: mean_D.expand_as(x_ND)), clean_logits
        ),
        clean_logits=clean_logits,
    )


def _losses(
    source: ActivationSource,
    batches: list[ContextBatch],
    hook: str,
    edit_of: EditOfBatch | None,
    clean_logits: list[Tensor] | None,
) -> Losses:
    """Losses of the edited model over all batches; the model's lock is held a batch at a time."""
    model = source.language_model
    sums = torch.zeros(4, dtype=torch.float64)
    for index, batch in enumerate(batches):
        clean_CTV = clean_logits[index] if clean_logits else model.logits(batch.tokens_CT)
        edited_CTV = clean_CTV
        if edit_of is not None:
            edited_CTV = model.logits(batch.tokens_CT, {hook: edit_of(batch)})
        sums += _loss_sums(batch, clean_CTV, edited_CTV)
    ce_sum, num_ce, kl_sum, num_kl = sums.tolist()
    return Losses(ce=ce_sum / num_ce, kl=kl_sum / num_kl)


def _loss_sums(batch: ContextBatch, clean_CTV: Tensor, edited_CTV: Tensor) -> Tensor:
    """Sum of cross-entropies, their number, sum of KLs, their number; a context at a time."""
    device = edited_CTV.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    tokens_CT, kept_CT = batch.tokens_CT.to(device), batch.kept_CT.to(device)
    for tokens_T, kept_T, clean_TV, edited_TV in zip(
        tokens_CT, kept_CT, clean_CTV, edited_CTV, strict=True
    ):
        # The last position has no next token to be right about.
        scored_T = kept_T[:-1]
        logits_NV = edited_TV[:-1][scored_T].float()
        ce = cross_entropy(logits_NV, tokens_T[1:][scored_T], reduction="sum")
        kl = kl_div(
            log_softmax(edited_TV[kept_T].float(), dim=-1),
            log_softmax(clean_TV[kept_T].float(), dim=-1),
            reduction="sum",
            log_target=True,
        )
        sums += torch.stack([ce, scored_T.sum(), kl, kept_T.sum()]).double()
    return sums.cpu()


def _recovered(ablated: float, edited: float, clean: float) -> float:
    """Share of the loss that the ablation costs and the reconstruction does not."""
    gap = ablated - clean
    return (ablated - edited) / gap if gap else float("nan")
