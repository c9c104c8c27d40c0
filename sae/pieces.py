"""Cuts documents into pieces that a tokenizer can take, and sets some of them aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from sae.sources.base import Document

PIECE_CHARS = 8192
"""Longest piece: a 50 MB line is never one string in memory, nor one call of the tokenizer."""
SHORT_SOURCE_PIECES = 40
"""A source with fewer pieces is cut finer, so that one in ten can be held out of a small file."""
MIN_PIECE_CHARS = 64

HELD_OUT_EVERY = 10
HELD_OUT_REMAINDER = 5


@dataclass(frozen=True)
class Piece:
    """Consecutive text of one document."""

    index: int
    text: str
    starts_document: bool

    @property
    def is_held_out_candidate(self) -> bool:
        """Whether the piece is for evaluation, as long as more is wanted there."""
        return is_candidate(self.index)


def is_candidate(index: int) -> bool:
    """Whether the piece of this index is for evaluation, as long as more is wanted there."""
    return index % HELD_OUT_EVERY == HELD_OUT_REMAINDER


def cut_documents(documents: Iterable[Document]) -> Iterator[Piece]:
    """Cut documents at whitespace; a function of the text alone.

    Pieces have at most `PIECE_CHARS` characters. A source that has fewer than
    `SHORT_SOURCE_PIECES` of them is cut into about that many (of at least `MIN_PIECE_CHARS`).
    """
    cuts = _cut(documents, PIECE_CHARS)
    head = list(islice(cuts, SHORT_SOURCE_PIECES))
    if len(head) < SHORT_SOURCE_PIECES:
        num_chars = sum(len(text) for text, _ in head)
        piece_chars = max(MIN_PIECE_CHARS, num_chars // SHORT_SOURCE_PIECES)
        cuts, head = _cut(_joined(head), min(piece_chars, PIECE_CHARS)), []
    for index, (text, starts_document) in enumerate(chain(head, cuts)):
        yield Piece(index, text, starts_document)


def _cut(documents: Iterable[Document], piece_chars: int) -> Iterator[tuple[str, bool]]:
    for document in documents:
        starts_document = True
        rest = ""
        for chunk in document:
            rest += chunk
            start = 0
            while len(rest) - start > piece_chars:
                end = _last_break(rest, start, start + piece_chars)
                yield rest[start:end], starts_document
                starts_document, start = False, end
            rest = rest[start:]
        if rest:
            yield rest, starts_document


def _last_break(text: str, start: int, limit: int) -> int:
    """Find the last place at or before `limit` where whitespace follows, else `limit`."""
    # Whitespace stays with the word behind it: byte-level tokenizers read it as part of that word.
    middle = (start + limit) // 2
    end = max(text.rfind(space, middle + 1, limit + 1) for space in " \n\t")
    if end < 0:
        return limit
    while end - 1 > middle and text[end - 1].isspace():
        end -= 1
    return end


def _joined(cuts: list[tuple[str, bool]]) -> Iterator[list[str]]:
    document: list[str] = []
    for text, starts_document in cuts:
        if starts_document and document:
            yield document
            document = []
        document.append(text)
    if document:
        yield document
