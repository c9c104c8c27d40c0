"""What generation gives for one prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Generated", "OnRow"]


@dataclass(frozen=True)
class Generated:
    """One answer."""

    text: str
    """Without special tokens."""
    tokens: tuple[int, ...]
    """Without the token that ended it."""
    ended: bool
    """False if it was cut after `max_new_tokens`."""


OnRow = Callable[[int, Generated], None]
"""Called with a row's place among the prompts as soon as its answer is there."""
