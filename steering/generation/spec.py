"""How text is generated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GenerationSpec"]


class GenerationSpec(BaseModel):
    """Length, sampling and wording of the prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_new_tokens: int = Field(default=64, gt=0)
    """Most tokens of an answer."""
    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that have this much probability together."""
    seed: int = 0
    """Together with a row's own seed it decides what is sampled in that row."""
    chat: bool = True
    """Put prompts into the model's chat template; else they are continued as they are."""
    system: str | None = None
    """System message of the chat; None leaves it to the template, which may have its own."""
    rows: int = Field(default=32, gt=0)
    """Most rows of a batch: a bound on memory; what is generated does not depend on it."""
