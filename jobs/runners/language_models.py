"""The language model of a process: workers are used again for the next trial."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae.language_model import LanguageModel

__all__ = ["model_of"]


@lru_cache(maxsize=1)
def model_of(model_json: str, device: str) -> LanguageModel:
    """The language model, once a process. Raises BadModel."""
    from sae.language_model import LanguageModel
    from sae.stream_spec import ModelSpec

    return LanguageModel.load(ModelSpec.model_validate_json(model_json), device)
