"""Which features: a hook's activations or an SAE's latents there, pooled or a row a token."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["TOKEN_POOLINGS", "ExtractSettings", "FeaturePooling", "FeatureSpec"]

FeaturePooling = Literal["last", "mean", "max", "first", "tokens", "attention"]
TOKEN_POOLINGS = ("tokens", "attention")


class FeatureSpec(BaseModel):
    """One table of features."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    hook: str | None = None
    """Module whose output is read; not given: the hook that the SAE was trained at."""
    sae: str | None = None
    """Name of one of the SAEs that are given; not given: the activations themselves."""
    pooling: FeaturePooling = "mean"
    """Over a text's own tokens, BOS and padding aside: last, mean, max, first. tokens: a row a
    token. attention: the same rows, for a probe that weighs the tokens of a text itself."""

    @model_validator(mode="after")
    def _names_a_place(self) -> Self:
        if self.hook is None and self.sae is None:
            raise ValueError("give the hook to read, or an SAE that knows its own")
        return self

    @property
    def is_by_token(self) -> bool:
        """Whether a row is a token, not a text."""
        return self.pooling in TOKEN_POOLINGS

    @property
    def is_bag(self) -> bool:
        """Whether a probe reads all token rows of a text as one: a bag."""
        return self.pooling == "attention"

    @property
    def label(self) -> str:
        """How a person would call it."""
        place = " at ".join(name for name in (self.sae, self.hook) if name)
        return f"{place}, {self.pooling}"


class ExtractSettings(BaseModel):
    """How texts are read; what changes it changes the features."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_tokens: int = Field(default=512, ge=2)
    """Longer texts are cut, BOS counted."""
    kept_tokens: int | None = Field(default=None, ge=1)
    """Of tables by token: most rows of a text, spread evenly from its first token to its last. Not
    given: all of them."""
    precision: Literal["float32", "float16"] = "float32"
    """Of what is kept on disk; float16 halves it, and makes ties of values that differ less than
    one in a thousand. Values beyond 65504 are cut."""
    batch_tokens: int = Field(default=4096, ge=2)
    """Most tokens of a forward pass, padding included."""
    sae_tokens: int = Field(default=512, ge=1)
    """Tokens an SAE encodes at a time: so many rows of d_sae numbers are in memory at once."""
    shard_chars: int = Field(default=65536, ge=1)
    """Texts of so many characters are read between two files: what a kill loses at most."""
