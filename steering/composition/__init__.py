"""Groups' vectors from style attributes, and which attributes matter. This alone loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steering.composition.spec import CompositionSpec

if TYPE_CHECKING:
    from steering.composition.composing import GroupVectors, group_vectors
    from steering.composition.importance import Importance, attribute_importance
    from steering.composition.weights import GroupWeights, group_styles, group_weights

__all__ = [
    "CompositionSpec",
    "GroupVectors",
    "GroupWeights",
    "Importance",
    "attribute_importance",
    "group_styles",
    "group_vectors",
    "group_weights",
]

_LATER = {
    "GroupVectors": "composing",
    "GroupWeights": "weights",
    "Importance": "importance",
    "attribute_importance": "importance",
    "group_styles": "weights",
    "group_vectors": "composing",
    "group_weights": "weights",
}
"""Name -> its module, imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
