"""The eight conditions of the table, and what a prompt says in each of them. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "BASELINE",
    "CONDITIONS",
    "RESAMPLED",
    "STEERED_ALONE",
    "Condition",
    "PromptTexts",
    "condition_named",
]


@dataclass(frozen=True)
class Condition:
    """Whether the model is steered, and what of the target is said in the prompt."""

    name: str
    steer: bool
    group_in_prompt: bool
    attributes_in_prompt: bool

    @property
    def label(self) -> str:
        """What is done, in words: `steering + group`."""
        parts = {
            "steering": self.steer,
            "group": self.group_in_prompt,
            "attributes": self.attributes_in_prompt,
        }
        return " + ".join(part for part, is_there in parts.items() if is_there) or "nothing"

    @property
    def depends_on_target(self) -> bool:
        """Whether anything of the target group goes in."""
        return self.steer or self.group_in_prompt or self.attributes_in_prompt

    @property
    def unsteered(self) -> Condition:
        """The same prompt without steering: what steering alone is held against."""
        return next(
            one
            for one in CONDITIONS
            if not one.steer
            and one.group_in_prompt == self.group_in_prompt
            and one.attributes_in_prompt == self.attributes_in_prompt
        )


CONDITIONS: tuple[Condition, ...] = (
    Condition("C1", False, False, False),
    Condition("C2", False, True, False),
    Condition("C3", False, False, True),
    Condition("C4", False, True, True),
    Condition("C5", True, False, False),
    Condition("C6", True, True, False),
    Condition("C7", True, False, True),
    Condition("C8", True, True, True),
)
BASELINE, STEERED_ALONE = CONDITIONS[0], CONDITIONS[4]
RESAMPLED = "C1b"
"""C1 once more with another seed: what changes when nothing is done."""


def condition_named(name: str) -> Condition:
    """Look one up. Raises ValueError that lists them."""
    for one in CONDITIONS:
        if one.name == name:
            return one
    raise ValueError(
        f"condition {name!r} is unknown; known: {', '.join(one.name for one in CONDITIONS)}"
    )


class PromptTexts(BaseModel):
    """The words in which a prompt names the target group and its attributes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    group: str = Field(default="Answer like a {group}.", min_length=1)
    """Says the group; {group} is its name."""
    attributes: str = Field(default="{attributes}", min_length=1)
    """Says the attributes; {attributes} are their sentences, one after the other: the same that
    their vectors are read from."""
    names: Mapping[str, str] = {}
    """What a group is called in prompts, where its own name would say nothing."""
    place: Literal["before", "after"] = "before"
    """Where all that is said: before the question, or after it."""

    @model_validator(mode="after")
    def _have_their_places(self) -> Self:
        for key, text in (
            ("group", self.group),
            ("attributes", self.attributes),
        ):
            if f"{{{key}}}" not in text:
                raise ValueError(f"{key}={text!r} has no {{{key}}} in it; write it where it goes")
        return self

    def said(self, condition: Condition, group: str, sentences: Sequence[str]) -> str:
        """The instruction of a condition, empty for none.

        Args:
            sentences: about the group's most important attributes, such as "You use irony.".
        """
        parts = []
        if condition.group_in_prompt:
            parts.append(self.group.replace("{group}", self.names.get(group, group)))
        if condition.attributes_in_prompt:
            parts.append(self.attributes.replace("{attributes}", " ".join(sentences)))
        return " ".join(parts)

    def prompt(
        self, condition: Condition, question: str, group: str, sentences: Sequence[str]
    ) -> str:
        """The question with what a condition says."""
        said = self.said(condition, group, sentences)
        if not said:
            return question
        return "\n\n".join((said, question) if self.place == "before" else (question, said))
