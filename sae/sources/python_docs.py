"""The reference manual that Python itself carries: English text, about 113k tokens."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

from sae.sources.base import Document, Source, chunks_of


class PythonDocs(Source):
    """Topics of `pydoc_data`, in the order of their names."""

    name: ClassVar[str] = "python-docs"
    is_builtin: ClassVar[bool] = True

    def documents(self) -> Iterator[Document]:
        """Walk over the topics; never fails."""
        for text in _topics():
            yield chunks_of(text)

    def fingerprint(self) -> dict[str, Any]:
        """Hash of the text, and the Python it came with: other versions carry other text."""
        digest = hashlib.sha256("\0".join(_topics()).encode())
        return {
            "source": self.name,
            "python": ".".join(map(str, sys.version_info[:3])),
            "sha256": digest.hexdigest(),
        }

    def stamp(self) -> dict[str, Any]:
        """The fingerprint: the text is small."""
        return self.fingerprint()


def _topics() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]
