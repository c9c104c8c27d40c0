"""What training and evaluation need of an activation stream, so that a test can bring its own.

Shape suffixes: B = tokens in the batch, C = contexts, T = context length, N = kept held-out
tokens, D = d_in, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

Edit: TypeAlias = "Callable[[Tensor], Tensor]"
"""What replaces a module's output: [C, T, D] in, [C, T, D] out."""


class HeldOut(Protocol):
    """Tokens that no member trains on, the same for every member."""

    @property
    def tokens_CT(self) -> Tensor: ...

    @property
    def kept_CT(self) -> Tensor:
        """True where the activation counts: no special token, not the first position."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def activations(self, hook: str) -> Tensor:
        """[N, D] fp32, kept positions in row-major (context, position) order."""


class HookedLanguageModel(Protocol):
    """A language model whose module outputs can be read and replaced; one user at a time."""

    @property
    def lock(self) -> RLock: ...

    @property
    def model(self) -> nn.Module: ...

    @property
    def tokenizer(self) -> Any: ...

    def path_of(self, hook: str) -> str:
        """Module path that a hook stands for."""

    def logits(self, tokens_CT: Tensor, edit: Mapping[str, Edit] | None = None) -> Tensor:
        """[C, T, V] of the whole forward pass, outputs replaced where `edit` says so."""

    def activations(self, tokens_CT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Hook to [C, T, D]."""


class ActivationSource(Protocol):
    """Batches of activations as a pure function of position, and the held-out tokens."""

    @property
    def held_out(self) -> HeldOut: ...

    @property
    def lm_seconds(self) -> float:
        """Time spent in the language model's forward passes so far."""

    @property
    def lm_tokens(self) -> int: ...

    @property
    def batch_tokens(self) -> int: ...

    @property
    def hooks(self) -> Sequence[str]: ...

    @property
    def language_model(self) -> HookedLanguageModel: ...

    def batch_at(self, position: int) -> dict[str, Tensor]:
        """Hook to [B, D] fp32, the same for equal positions."""

    def d_in(self, hook: str) -> int: ...

    def scale(self, hook: str) -> float:
        """sqrt(d_in) over the mean norm of an activation, fixed by the stream's spec."""

    def mean(self, hook: str) -> Tensor:
        """[D] mean activation, fixed by the stream's spec."""

    def epoch_at(self, position: int) -> int: ...

    def record(self) -> dict[str, Any]: ...
