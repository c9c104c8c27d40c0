"""A question that a language model is asked about texts. Plain data, no torch."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["YesNoSpec"]

ANSWERS_YES = (" Yes", "Yes", " yes", "yes")
ANSWERS_NO = (" No", "No", " no", "no")


class YesNoSpec(BaseModel):
    """A question that the model is asked about each text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    question: str = Field(min_length=1)
    """Such as: Is there program code in the text?"""
    template: str = "{text}\n\nQuestion: {question} Answer yes or no.\nAnswer:"
    """What the model reads; holds {text} once, and {question}."""
    chat: bool = False
    """Whether it is put into the model's chat template, as the user's words."""
    yes: tuple[str, ...] = Field(default=ANSWERS_YES, min_length=1)
    """Answers that mean yes; those of them that are one token count, by the logarithm of the sum
    of their exponentials."""
    no: tuple[str, ...] = Field(default=ANSWERS_NO, min_length=1)
    """Answers that mean no."""
    max_tokens: int = Field(default=256, ge=1)
    """Longer texts are cut."""

    @model_validator(mode="after")
    def _has_places(self) -> Self:
        if self.template.count("{text}") != 1 or "{question}" not in self.template:
            raise ValueError(
                f"template={self.template!r} must hold {{text}} once, and {{question}}"
            )
        return self
