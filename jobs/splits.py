"""How labelled rows are dealt into parts: the same words in every job kind that does."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator


class SplitConfig(BaseModel):
    """Which share of the items is trained on, chosen on and reported on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Of train, validation and test; they add up to 1."""
    seed: int = 0
    """The same for every trial of the sweep."""

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares={list(self.shares)} must be positive and add up to 1")
        return self
