"""What is asked of whoever announces that this machine will be taken away, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, Literal, Protocol

DRAIN_AHEAD_S = 180.0
"""A machine that goes later than in so many seconds still works; AWS tells 120 s ahead."""


class BadNotices(ValueError):
    """A source of notices that does not exist, or lacks what it takes."""


class NoticesUnavailable(ValueError):
    """A source could not be asked: another cloud, no answer, an answer that says nothing."""


@dataclass(frozen=True)
class Notice:
    """This machine will be taken away, or may be."""

    kind: Literal["terminate", "rebalance"]
    """`rebalance`: it is likelier to be taken than others of its kind; nothing is decided."""
    deadline_s: float | None
    """Seconds from now until it goes; None: nobody says."""
    words: str
    """What was announced, for people: `spot notice (terminate)`."""
    source: str
    """Name of who announced it."""

    @property
    def is_due(self) -> bool:
        """Whether to leave the machine now: it goes, and soon."""
        return self.kind == "terminate" and (
            self.deadline_s is None or self.deadline_s <= DRAIN_AHEAD_S
        )

    def __str__(self) -> str:
        when = "" if self.deadline_s is None else f", {max(self.deadline_s, 0.0):.0f} s are left"
        return f"{self.words}{when}"


class Announcer(Protocol):
    """Whoever can be polled for notices."""

    @property
    def name(self) -> str:
        """Short, for people."""

    def poll(self) -> Notice | None:
        """What is announced now. Raises NoticesUnavailable."""


class NoticeSource(ABC):
    """One source; a subclass is found by its `name`."""

    name: ClassVar[str]
    takes: ClassVar[str] = ""
    """What follows its name and a colon, as shown to people; empty: nothing."""
    by_name: ClassVar[dict[str, type[NoticeSource]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name in NoticeSource.by_name:
            raise ValueError(f"two sources of notices are named {cls.name!r}; rename one")
        NoticeSource.by_name[cls.name] = cls

    def __init__(self, argument: str = "") -> None:
        """
        Args:
            argument: what was written after the colon.
        """
        self.argument = argument

    @abstractmethod
    def poll(self) -> Notice | None:
        """What is announced now; None for nothing. Takes seconds at most.

        Raises NoticesUnavailable.
        """

    def is_here(self) -> bool:
        """Whether this machine is one of theirs; answers within a second."""
        return False

    def labels(self) -> Mapping[str, str]:
        """What the source knows of this machine: `instance-type`, `zone`, `market`, `provider`."""
        return {}


def notice_source(text: str) -> NoticeSource | None:
    """The source that a person named: `auto`, `none`, or a name, perhaps with an argument.

    `auto` asks each source whether this machine is one of its own, for a second at most. None
    stands for no notices. Raises BadNotices.
    """
    name, colon, argument = text.strip().partition(":")
    if name in ("", "none"):
        return None
    if name == "auto" and not colon:
        return find_source()
    kind = NoticeSource.by_name.get(name)
    if kind is None:
        raise BadNotices(_unknown(name))
    if bool(kind.takes) != bool(argument.strip()):
        way = f"write {_written(kind)}"
        raise BadNotices(f"notices {text!r}: {name} takes {kind.takes or 'nothing'}; {way}")
    return kind(argument.strip())


def find_source() -> NoticeSource | None:
    """The source whose machine this is; None where it is nobody's."""
    found = (kind() for kind in _kinds() if not kind.takes)
    return next((source for source in found if source.is_here()), None)


def _unknown(name: str) -> str:
    known = ["auto", "none", *map(_written, _kinds())]
    near = get_close_matches(name, ["auto", "none", *NoticeSource.by_name], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"notices {name!r} are unknown; known: {', '.join(known)}.{hint}"


def _kinds() -> list[type[NoticeSource]]:
    return [NoticeSource.by_name[name] for name in sorted(NoticeSource.by_name)]


def _written(kind: type[NoticeSource]) -> str:
    return f"{kind.name}:{kind.takes}" if kind.takes else kind.name
