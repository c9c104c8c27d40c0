"""Tokens that no SAE trains on, and their activations, the same for every SAE of a stream.

A torch module. Shape suffixes: C = contexts, T = context length, N = kept tokens, D = width at
the hook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from threading import RLock

import torch
from torch import Tensor

from sae.packing import Packing, Tokens

Forward = Callable[[Tensor], dict[str, Tensor]]
"""Token ids [C, T] to activations [C, T, D] of each hook."""


class HeldOut:
    """Held-out contexts; activations are computed once, when first asked for."""

    def __init__(
        self,
        tokens_CT: Tokens,
        packing: Packing,
        forward: Forward,
        device: torch.device,
        lm_batch_contexts: int,
        lock: RLock,
    ) -> None:
        """Take the tokens; no forward pass yet.

        Args:
            lock: the language model's own. A second one could be waited for in the other order.
        """
        kept_CT = packing.kept(tokens_CT)
        self.tokens_CT = torch.from_numpy(tokens_CT).long().to(device)
        """Token ids."""
        self.kept_CT = torch.from_numpy(kept_CT).to(device)
        """True where an activation counts: no special token, not the first position."""
        self.num_tokens = int(kept_CT.sum())
        self.fingerprint = hashlib.sha256(tokens_CT.tobytes()).hexdigest()
        self._forward = forward
        self._lm_batch_contexts = lm_batch_contexts
        self._lock = lock
        self._activations: dict[str, Tensor] | None = None

    def activations(self, hook: str) -> Tensor:
        """Activations of the kept tokens, [N, D] fp32, in the order of context and position.

        Raises ValueError if the stream does not have the hook.
        """
        with self._lock:
            if self._activations is None:
                self._activations = self._compute()
            if hook not in self._activations:
                raise ValueError(
                    f"hook {hook!r} is not in this stream; its hooks are "
                    f"{', '.join(self._activations)}"
                )
            return self._activations[hook]

    def _compute(self) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(self.tokens_CT), self._lm_batch_contexts):
            rows = slice(start, start + self._lm_batch_contexts)
            for hook, acts_CTD in self._forward(self.tokens_CT[rows]).items():
                parts.setdefault(hook, []).append(acts_CTD[self.kept_CT[rows]].float())
        # Cloned outside inference mode: these may take part in a computation with gradients.
        return {hook: torch.cat(acts).clone() for hook, acts in parts.items()}
