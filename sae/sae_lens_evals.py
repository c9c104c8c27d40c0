"""sae_lens's own evaluation of an exported SAE, over exactly our held-out tokens and positions.

sae_lens leaves positions out by token id alone. Ours leave out positions (the first of each
context, too), so the ids at left-out positions are encoded as -1 - id, listed as the ids to
ignore, and decoded again before the model sees them.

Shape suffixes: C = contexts, T = context length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.load_model import HookedProxyLM
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.activations_store import ActivationsStore
from torch import Tensor

from sae.activation_source import ActivationSource, HookedLanguageModel
from sae.downstream import num_contexts_for
from sae.hooks import UnknownHook, split_input
from sae.memory import sae_lens_contexts

DEFAULT_CE_TOKENS = 512
"""Kept tokens for sae_lens's cross-entropy, which costs three whole forward passes."""


class HeldOutProxyLM(HookedProxyLM):
    """sae_lens's wrapper over our model: decodes left-out ids, holds the lock, stops early."""

    def __init__(self, language_model: HookedLanguageModel, path: str) -> None:
        self._lock = language_model.lock
        super().__init__(language_model.model, language_model.tokenizer, hook_names=[path])

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("prepend_bos", None)
        with self._lock:
            return super().forward(torch.where(tokens < 0, -1 - tokens, tokens), *args, **kwargs)

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:
        # The hooks sit on the shared model for the whole call, so nobody else may run it.
        with self._lock:
            return super().run_with_hooks(*args, **kwargs)

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        # Not None means: stop once the asked-for modules have been called.
        kwargs["stop_at_layer"] = 0
        with self._lock:
            return super().run_with_cache(*args, **kwargs)


@contextmanager
def proxy_model(language_model: HookedLanguageModel, hook: str) -> Iterator[HeldOutProxyLM]:
    """The wrapper, with what it hooked onto the model taken off again.

    `HookedProxyLM` registers its forward hooks for good and drops their handles.
    """
    path = language_model.path_of(hook)
    if split_input(path)[1]:
        raise UnknownHook(
            f"hook {hook!r} is the input of a module in this model, and sae_lens's evaluation can "
            "hook outputs alone; use the project's own metrics for it"
        )
    module = language_model.model.get_submodule(path)
    with language_model.lock:
        before = set(module._forward_hooks)
        try:
            proxy = HeldOutProxyLM(language_model, path)
        finally:
            added = set(module._forward_hooks) - before
    try:
        yield proxy
    finally:
        with language_model.lock:
            for handle_id in added:
                del module._forward_hooks[handle_id]


def run_sae_lens_evals(
    sae: Any,
    source: ActivationSource,
    hook: str,
    *,
    ce_tokens: int = DEFAULT_CE_TOKENS,
) -> dict[str, float]:
    """Evaluate an exported SAE with `sae_lens.evals.run_evals`.

    Reconstruction and sparsity are taken over all held-out tokens, the losses over the first
    `ce_tokens` kept ones.

    Returns:
        explained_variance, l0, l1, mse, cossim, l2_ratio, ce_loss_score, kl_div_score, and the
        losses they come from, all under sae_lens's names.
    """
    held_out = source.held_out
    num_contexts = len(held_out.tokens_CT)
    num_ce_contexts = num_contexts_for(held_out.kept_CT, ce_tokens)
    with proxy_model(source.language_model, hook) as model:
        found = _run(sae, source, model, range(num_contexts), losses=False)
        return {**found, **_run(sae, source, model, range(num_ce_contexts), losses=True)}


def _run(
    sae: Any, source: ActivationSource, model: HeldOutProxyLM, contexts: range, *, losses: bool
) -> dict[str, float]:
    """One pass over the first contexts, in batches of one size that comes out even."""
    most = sae_lens_contexts(d_sae=sae.cfg.d_sae, context=source.held_out.tokens_CT.shape[-1])
    size = next(size for size in range(most, 0, -1) if len(contexts) % size == 0)
    store, ignored = _store(sae, source, model, len(contexts), size)
    metrics, _ = run_evals(
        sae,
        store,
        model,
        ActivationScaler(),
        EvalConfig(
            batch_size_prompts=size,
            n_eval_reconstruction_batches=len(contexts) // size,
            n_eval_sparsity_variance_batches=len(contexts) // size,
            compute_kl=losses,
            compute_ce_loss=losses,
            compute_l2_norms=not losses,
            compute_sparsity_metrics=not losses,
            compute_variance_metrics=not losses,
        ),
        exclude_special_tokens=ignored,
    )
    del metrics["token_stats"]
    return {name: value for group in metrics.values() for name, value in group.items()}


def _store(
    sae: Any, source: ActivationSource, model: HeldOutProxyLM, num_contexts: int, size: int
) -> tuple[ActivationsStore, list[int]]:
    tokens_CT = source.held_out.tokens_CT[:num_contexts].cpu().long()
    kept_CT = source.held_out.kept_CT[:num_contexts].cpu()
    encoded_CT = torch.where(kept_CT, tokens_CT, -1 - tokens_CT)
    # As an iterable, which gives lists: of a tensor row the store would warn that it copies it.
    dataset = Dataset.from_dict({"tokens": encoded_CT.tolist()}).to_iterable_dataset()
    store = ActivationsStore(
        model=model,
        dataset=dataset,
        streaming=False,
        hook_name=sae.cfg.metadata.hook_name,
        hook_head_index=None,
        context_size=tokens_CT.shape[-1],
        d_in=sae.cfg.d_in,
        n_batches_in_buffer=1,
        total_training_tokens=tokens_CT.numel(),
        store_batch_size_prompts=size,
        train_batch_size_tokens=source.batch_tokens,
        prepend_bos=False,
        normalize_activations="none",
        device=sae.device,
        dtype=sae.cfg.dtype,
    )
    return store, sorted(set(encoded_CT[~kept_CT].tolist()))
