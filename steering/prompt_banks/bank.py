"""A list of prompts, each with the group whose topic it is about, if there is one. Plain data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from steering.errors import BadSteeringInput

__all__ = ["Bank", "Prompt"]


@dataclass(frozen=True)
class Prompt:
    """A question to be answered in any style."""

    id: str
    text: str
    group: str | None = None
    """Whose topic it asks about; None: nobody's, a neutral one."""


@dataclass(frozen=True)
class Bank:
    """Prompts in their order."""

    name: str
    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        for what, values in (
            ("id", [prompt.id for prompt in self.prompts]),
            ("prompt", [" ".join(prompt.text.lower().split()) for prompt in self.prompts]),
        ):
            twice = [one for one, count in Counter(values).items() if count > 1]
            if twice:
                raise BadSteeringInput(
                    f"prompt bank {self.name!r} has the same {what} more than once: {twice[0]!r}; "
                    "a repeated prompt would count twice, drop it"
                )
        if not self.prompts:
            raise BadSteeringInput(f"prompt bank {self.name!r} is empty; give it prompts")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sha256(self) -> str:
        """Of all that is asked, in its order."""
        said = [[one.id, one.text, one.group] for one in self.prompts]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def first(self, count: int, groups: Sequence[str] | None = None) -> Bank:
        """The first prompts, those about groups dealt out evenly over the groups.

        Args:
            groups: prompts about other groups are left out.

        Raises:
            BadSteeringInput: there are not so many.
        """
        usable = [p for p in self.prompts if groups is None or p.group is None or p.group in groups]
        if len(usable) < count:
            about = f" about {', '.join(groups)}" if groups and len(usable) < len(self) else ""
            raise BadSteeringInput(
                f"prompt bank {self.name!r} has {len(usable)} prompts{about}, and {count} are "
                "asked for; ask for fewer, or add some"
            )
        turn_by_group: Counter[str | None] = Counter()
        turns = []
        for place, prompt in enumerate(usable):
            turns.append((turn_by_group[prompt.group], place))
            turn_by_group[prompt.group] += 1
        return Bank(self.name, tuple(usable[place] for _, place in sorted(turns)[:count]))
