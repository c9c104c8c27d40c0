"""Contrast sets that saeq carries: pairs of sentences that say the same in two ways.

A module here is a set: its name, and PAIRS of (positive, negative) texts.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

__all__ = ["builtin_pairs", "set_names"]

Pair = tuple[str, str]


def set_names() -> tuple[str, ...]:
    """Names of the sets."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def builtin_pairs(name: str) -> tuple[Pair, ...]:
    """(positive, negative) texts of a set of `set_names()`."""
    pairs: tuple[Pair, ...] = import_module(f"{__name__}.{name}").PAIRS
    return pairs
