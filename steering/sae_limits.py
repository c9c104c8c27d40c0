"""What an SAE has to reach on a job's prompts before it is steered with. Plain data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SaeLimits"]


class SaeLimits(BaseModel):
    """Floors of the check before steering."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_fvu: float = Field(default=0.5, gt=0)
    """Most of the variance that it may leave unexplained; 1 is no better than the mean."""
    min_l0: float = Field(default=0.5, ge=0)
    """Fewest latents a token, on the mean: an SAE that hardly fires knows nothing of the text."""
    other_model: bool = False
    """Allow an SAE that says it was trained on another model, such as the base of a tuned one."""

    def hold(self, fvu: float, l0: float) -> bool:
        """Whether an SAE may be steered with; NaN may not."""
        return fvu <= self.max_fvu and l0 >= self.min_l0

    def __str__(self) -> str:
        return f"max_fvu={self.max_fvu:g} and min_l0={self.min_l0:g} are asked for"
