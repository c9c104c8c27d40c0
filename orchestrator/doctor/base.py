"""What a check of `saeq doctor` is asked, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from orchestrator.store import Store

Level = Literal["ok", "note", "warning", "fault"]
"""A fault keeps something from working; a warning costs money or time; a note is for knowing."""


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    level: Level
    what: str
    """One sentence with the value that was found."""
    way_out: str = ""
    """What to do, as a command where there is one; empty where nothing is to be done."""


class Check(ABC):
    """One thing looked at; a subclass is found by its `name`."""

    name: ClassVar[str]
    """In a word or two; the heading of its lines."""
    order: ClassVar[int] = 100
    """Low ones come first: machine, store, cluster."""
    within_s: ClassVar[float] = 15.0
    """So long it may take; then it is left behind and said to be silent."""
    by_name: ClassVar[dict[str, type[Check]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name in Check.by_name:
            raise ValueError(f"two checks are named {cls.name!r}; rename one")
        Check.by_name[cls.name] = cls

    def applies(self, store: Store) -> bool:
        """Whether there is anything to look at here: no SLURM, no check of it."""
        del store
        return True

    @abstractmethod
    def look(self, store: Store) -> Iterable[Finding]:
        """Look, for some seconds at most; what cannot be looked at is a finding, not an error."""
