"""A text as windows of packed contexts, tokenized as far as it is asked for, and a held-out part.

Shape suffixes: C = contexts, T = context length.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from sae.packing import ContextBank, Packer, Packing, Tokens
from sae.pieces import HELD_OUT_EVERY, Piece
from sae.stream_errors import BadData

logger = logging.getLogger(__name__)

WINDOW_TOKENS = 1 << 18
"""Contexts are put into random order within windows of this many tokens."""
TOKENIZE_PIECES = 64
"""Pieces given to the tokenizer at once, which splits them over the cores."""

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]


class PackedText:
    """Contexts of a text: the held-out ones, and the others in windows, read on demand.

    Which piece is held out, and what any window holds, is a function of the text, the tokenizer
    and the packing alone; it does not matter in which order windows are asked for.
    """

    def __init__(
        self,
        pieces: Iterator[Piece],
        tokenize: Tokenize,
        packing: Packing,
        *,
        held_out_tokens: int,
        batch_tokens: int,
    ) -> None:
        """Read until the held-out part is full and one batch is there.

        Raises BadData if the text is too short for either.
        """
        self.packing = packing
        self._pieces = pieces
        self._tokenize = tokenize
        self._window_contexts = max(1, WINDOW_TOKENS // packing.context)
        self._train, self._held_out = _Part(packing), _Part(packing)
        self._held_out_tokens = held_out_tokens
        self._bank = ContextBank()
        self._kept_before = [0]
        self._has_ended = False
        self._num_tokens = 0
        while not self._has_ended and not self._is_held_out_full:
            self._read_on()
        while not self._has_ended and self._kept_before[-1] < batch_tokens:
            self._read_on()
        self.held_out_CT = self._held_out.take(len(self._held_out))
        self._check_length(batch_tokens)

    @property
    def num_kept(self) -> int | None:
        """Training tokens in one epoch; None as long as the end of the text was not seen."""
        return self._kept_before[-1] if self._has_ended else None

    def place(self, index: int) -> tuple[int, int, int]:
        """Find the epoch, the window and the place in it of a kept training token."""
        while not self._has_ended and index >= self._kept_before[-1]:
            self._read_on()
        epoch, within = 0, index
        if self._has_ended:
            epoch, within = divmod(index, self._kept_before[-1])
        window = bisect_right(self._kept_before, within) - 1
        return epoch, window, within - self._kept_before[window]

    def window(self, index: int) -> Tokens:
        """Contexts of a window that `place` has named, [C, T]."""
        return self._bank[index]

    @property
    def _is_held_out_full(self) -> bool:
        return self._held_out.num_kept >= self._held_out_tokens

    def _read_on(self) -> None:
        pieces = list(islice(self._pieces, TOKENIZE_PIECES))
        for piece, token_ids in zip(
            pieces, self._tokenize([piece.text for piece in pieces]) if pieces else (), strict=True
        ):
            self._num_tokens += len(token_ids)
            held_out = piece.is_held_out_candidate and not self._is_held_out_full
            (self._held_out if held_out else self._train).add(piece, token_ids)
        self._has_ended = len(pieces) < TOKENIZE_PIECES
        while len(self._train) >= self._window_contexts:
            self._close_window(self._window_contexts)
        if self._has_ended and len(self._train):
            self._close_window(len(self._train))

    def _close_window(self, num_contexts: int) -> None:
        window_CT = self._train.take(num_contexts)
        self._bank.append(window_CT)
        num_kept = int(self.packing.kept(window_CT).sum())
        self._kept_before.append(self._kept_before[-1] + num_kept)

    def _check_length(self, batch_tokens: int) -> None:
        num_train, context = self._kept_before[-1], self.packing.context
        if len(self.held_out_CT) and num_train >= batch_tokens:
            if not self._is_held_out_full:
                logger.warning(
                    "the text is short: %d tokens are held out instead of %d",
                    self._held_out.num_kept,
                    self._held_out_tokens,
                )
            return
        raise BadData(
            f"the text is too short: {self._num_tokens} tokens were found, of which "
            f"{num_train} can be trained on (a batch needs {batch_tokens}) and "
            f"{len(self.held_out_CT)} contexts of {context} are held out (1 is needed, from one "
            f"tenth of the text: about {context * HELD_OUT_EVERY} tokens in all); give more text, "
            "or lower `context` or the batch size"
        )


class _Part:
    """Either half of the text: a packer, and the contexts it has completed."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._packer = Packer(packing)
        self._contexts: list[Tokens] = []
        self._num_contexts = 0
        self._last_index = -1
        self.num_kept = 0

    def __len__(self) -> int:
        return self._num_contexts

    def add(self, piece: Piece, token_ids: Sequence[int]) -> None:
        # A piece whose neighbour went to the other half does not continue anything.
        continues = not piece.starts_document and piece.index == self._last_index + 1
        self._last_index = piece.index
        tokens_CT = self._packer.add(token_ids, continues=continues)
        if len(tokens_CT):
            self._contexts.append(tokens_CT)
            self._num_contexts += len(tokens_CT)
            self.num_kept += int(self._packing.kept(tokens_CT).sum())

    def take(self, num_contexts: int) -> Tokens:
        """Hand the first contexts over, [C, T]."""
        if not self._contexts:
            return np.empty((0, self._packing.context), dtype=np.int32)
        tokens_CT = np.concatenate(self._contexts)
        self._contexts = [tokens_CT[num_contexts:]] if num_contexts < len(tokens_CT) else []
        self._num_contexts -= num_contexts
        return tokens_CT[:num_contexts]
