"""A text's pieces as token ids: tokenized, or read from where an earlier run left them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sae.bounded_folder import BoundedFolder
from sae.pieces import MIN_PIECE_CHARS, PIECE_CHARS, SHORT_SOURCE_PIECES, Piece, is_candidate
from sae.shard_file import HostArray

TOKENIZE_PIECES = 64
"""Pieces given to the tokenizer at once, which splits them over the cores."""
MAX_BYTES = 8 * 10**9
"""Of all token caches of a machine: two billion tokens."""
FORMAT = 1

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class TokenizedPiece:
    """A piece of text as token ids."""

    index: int
    starts_document: bool
    token_ids: Sequence[int]

    @property
    def is_held_out_candidate(self) -> bool:
        """Whether the piece is for evaluation, as long as more is wanted there."""
        return is_candidate(self.index)


class TokenCache:
    """Batches of tokenized pieces of one text by one tokenizer, on the local disk.

    Args:
        root: where those of every text are.
        identity: all that the token ids depend on, as JSON.
        max_bytes: of all below `root`.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> None:
        rules = [FORMAT, PIECE_CHARS, SHORT_SOURCE_PIECES, MIN_PIECE_CHARS, TOKENIZE_PIECES]
        text = json.dumps({**identity, "rules": rules}, sort_keys=True)
        self._subfolder = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._folder = BoundedFolder(root, max_bytes, "the token cache")

    def read(self, number: int) -> list[TokenizedPiece] | None:
        """The batch of this number; None if it is not there."""
        arrays = self._folder.read(self._name(number))
        if arrays is None:
            return None
        ends = np.cumsum(arrays["lengths"].numpy())
        ids = arrays["token_ids"].numpy()
        starts_document = arrays["starts_document"].numpy()
        return [
            TokenizedPiece(number * TOKENIZE_PIECES + n, bool(starts_document[n]), part.tolist())
            for n, part in enumerate(np.split(ids, ends)[:-1])
        ]

    def write(self, number: int, pieces: Sequence[TokenizedPiece]) -> None:
        """Keep a batch."""
        ids = [np.asarray(piece.token_ids, dtype=np.int32) for piece in pieces]
        arrays = {
            "token_ids": np.concatenate([*ids, np.empty(0, dtype=np.int32)]),
            "lengths": np.asarray([len(each) for each in ids], dtype=np.int64),
            "starts_document": np.asarray([p.starts_document for p in pieces], dtype=np.uint8),
        }
        held = {name: HostArray.of(array) for name, array in arrays.items()}
        self._folder.write(self._name(number), held, {})

    def _name(self, number: int) -> str:
        return f"{self._subfolder}/pieces-{number:06d}"


class TokenizedText:
    """Batches of tokenized pieces, one after the other; the last one is not full.

    Args:
        pieces: of the whole text; not read where the cache knows the answer.
        cache: where batches are kept, if anywhere.
    """

    def __init__(
        self, pieces: Iterator[Piece], tokenize: Tokenize, cache: TokenCache | None = None
    ) -> None:
        self._pieces = pieces
        self._tokenize = tokenize
        self._cache = cache
        self._number = 0
        self._num_pieces_read = 0

    def next_batch(self) -> list[TokenizedPiece]:
        """Give the next `TOKENIZE_PIECES` pieces; fewer at the end of the text."""
        number = self._number
        batch = None if self._cache is None else self._cache.read(number)
        if batch is None:
            batch = self._tokenized(number * TOKENIZE_PIECES)
            is_short_text = number == 0 and len(batch) < TOKENIZE_PIECES
            if self._cache is not None and not is_short_text:
                self._cache.write(number, batch)
        self._number += 1
        return batch

    def _tokenized(self, first: int) -> list[TokenizedPiece]:
        for _ in islice(self._pieces, first - self._num_pieces_read):
            pass  # known from the cache
        pieces = list(islice(self._pieces, TOKENIZE_PIECES))
        self._num_pieces_read = first + len(pieces)
        token_ids = self._tokenize([piece.text for piece in pieces]) if pieces else ()
        return [
            TokenizedPiece(piece.index, piece.starts_document, ids)
            for piece, ids in zip(pieces, token_ids, strict=True)
        ]
