"""Seeded generation whose rows do not depend on their batch, and scoring of what was generated.

Importing this alone loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steering.generation.answer import Generated, OnRow
from steering.generation.spec import GenerationSpec

if TYPE_CHECKING:
    from steering.generation.generating import generate
    from steering.generation.prompts import encode_prompts, stop_tokens
    from steering.generation.scoring import answer_logprobs

__all__ = [
    "Generated",
    "GenerationSpec",
    "OnRow",
    "answer_logprobs",
    "encode_prompts",
    "generate",
    "stop_tokens",
]

_LATER = {
    "answer_logprobs": "scoring",
    "encode_prompts": "prompts",
    "generate": "generating",
    "stop_tokens": "prompts",
}
"""Function -> its module, which imports torch: it is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
