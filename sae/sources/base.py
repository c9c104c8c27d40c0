"""What every source of text promises: documents, lazily, and a fingerprint for the record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from sae.stream_spec import DataSpec

CHUNK_CHARS = 65_536
"""A long document is handed on in chunks of this size, so memory stays bounded."""

Document = Iterable[str]
"""One document, as the chunks it consists of."""


class Source(ABC):
    """A place where text comes from. Subclassing registers it under its name.

    A source with `is_builtin` is asked for by `builtin: <name>`; any other by a key of the
    data part of the sweep file that has its name.
    """

    by_name: ClassVar[dict[str, type[Source]]] = {}

    name: ClassVar[str]
    is_builtin: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name in Source.by_name:
            raise TypeError(f"two sources are named {cls.name!r}; rename one")
        Source.by_name[cls.name] = cls

    def __init__(self, data: DataSpec) -> None:
        self.data = data

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Walk over the documents in a fixed order. Raises BadData for text that is not usable."""

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Say as JSON what the text was, exactly enough to notice that it has changed."""

    def stamp(self) -> Mapping[str, Any] | None:
        """Say as JSON what differs, on this machine, once the text does; asked at each start.

        None if that cannot be said cheaply, or the text has no end: its tokens are not kept then.
        """
        return None

    def check(self) -> None:
        """Look for faults that the start of the text shows; may ask the network. Raises BadData."""
        for document in islice(self.documents(), 1):
            next(iter(document), None)


def builtin_names() -> list[str]:
    """Names that `builtin:` may have."""
    return sorted(name for name, source in Source.by_name.items() if source.is_builtin)


def chunks_of(text: str) -> Iterator[str]:
    """Hand a text on in chunks of at most `CHUNK_CHARS` characters."""
    for start in range(0, len(text), CHUNK_CHARS):
        yield text[start : start + CHUNK_CHARS]
