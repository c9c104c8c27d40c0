"""How a group's vector is put together from attributes. Plain data, no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CompositionSpec"]


class CompositionSpec(BaseModel):
    """Which attributes a group's vector is made of, and how much of each."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    weights: Literal["softmax", "top_k"] = "softmax"
    """softmax: all attributes. top_k: those that the group leads by most over the runner-up group,
    and a softmax over these."""
    aggregator: Literal["median", "mean"] = "median"
    """A group's style from those of its texts, attribute by attribute."""
    tau: float = Field(default=0.05, gt=0)
    """Temperature of the softmax. Style values are within 0 and 1: at tau 1 hundreds of attributes
    weigh the same, whatever the group."""
    top_k: int = Field(default=20, gt=0)
    """Attributes of a group, for top_k; fewer where it leads in fewer."""
    centre: bool = True
    """Take the mean over attributes off their vectors, and the mean over groups off the styles:
    what all have in common says nothing about a group."""
    similar: float = Field(default=0.95, gt=0, le=1)
    """Warn where two groups' vectors have a larger cosine."""
