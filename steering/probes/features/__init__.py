"""Features for probes: activations and SAE latents of labelled text, computed once, kept on disk.

Importing this alone loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from steering.probes.features.spec import ExtractSettings, FeatureSpec

if TYPE_CHECKING:
    from steering.probes.features.extraction import extract
    from steering.probes.features.table import FeatureTable, TokenIndex

__all__ = ["ExtractSettings", "FeatureSpec", "FeatureTable", "TokenIndex", "extract"]

_LATER = {"extract": "extraction", "FeatureTable": "table", "TokenIndex": "table"}
"""Name -> its module, which imports torch: it is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
