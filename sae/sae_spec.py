"""Which finished SAE is meant. Plain data, no torch."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["BadSae", "SaeSpec"]


class BadSae(ValueError):
    """An SAE that cannot be had, or not be used as it is."""


class SaeSpec(BaseModel):
    """Where a finished SAE is; exactly one of folder and release."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    folder: str | None = None
    """A SAELens folder (cfg.json, sae_weights.safetensors), or Gemma Scope's with params.npz."""
    release: str | None = None
    """A release that sae_lens knows, such as gemma-scope-2b-pt-res-canonical."""
    id: str | None = None
    """Of one SAE of the release, such as layer_12/width_16k/canonical."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.folder is None) == (self.release is None):
            raise ValueError(
                f"give exactly one of folder and release; got folder={self.folder!r}, "
                f"release={self.release!r}"
            )
        if (self.release is None) != (self.id is None):
            raise ValueError(
                f"release and id name one SAE together; got release={self.release!r}, "
                f"id={self.id!r}"
            )
        return self

    @property
    def label(self) -> str:
        """How a person would call it."""
        return self.folder or f"{self.release}/{self.id}"
