"""A text as windows of packed contexts, tokenized as far as it is asked for, and a held-out part.

Shape suffixes: C = contexts, T = context length.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np

from sae.packing import ContextBank, Packer, Packing, Tokens
from sae.pieces import HELD_OUT_EVERY, Piece
from sae.stream_errors import BadData
from sae.token_cache import TOKENIZE_PIECES, TokenCache, Tokenize, TokenizedPiece, TokenizedText

logger = logging.getLogger(__name__)

WINDOW_TOKENS = 1 << 18
"""Contexts are put into random order within windows of this many tokens."""


class PackedText:
    """Contexts of a text: the held-out ones, and the others in windows, read on demand.

    Which piece is held out, and what any window holds, is a function of the text, the tokenizer
    and the packing alone; it does not matter in which order windows are asked for.

    One caller at a time. A thread of its own reads on while the caller is busy elsewhere.
    """

    def __init__(
        self,
        pieces: Iterator[Piece],
        tokenize: Tokenize,
        packing: Packing,
        *,
        held_out_tokens: int,
        batch_tokens: int,
        ahead_tokens: int = 0,
        cache: TokenCache | None = None,
    ) -> None:
        """Read until the held-out part is full and one batch is there.

        Args:
            ahead_tokens: kept training tokens to have ready beyond the last one asked for.
            cache: where token ids are kept for the next start, if anywhere.

        Raises BadData if the text is too short for either.
        """
        self.packing = packing
        self._text = TokenizedText(pieces, tokenize, cache)
        self._ahead_tokens = ahead_tokens
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._reading: Future[None] | None = None
        self._failure: Exception | None = None
        self._bank_lock = Lock()
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
            self._wait_or_read_on()
        self._read_ahead_of(index)
        epoch, within = 0, index
        if self._has_ended:
            epoch, within = divmod(index, self._kept_before[-1])
        window = bisect_right(self._kept_before, within) - 1
        return epoch, window, within - self._kept_before[window]

    def window(self, index: int) -> Tokens:
        """Contexts of a window that `place` has named, [C, T]."""
        with self._bank_lock:
            return self._bank[index]

    @property
    def _is_held_out_full(self) -> bool:
        return self._held_out.num_kept >= self._held_out_tokens

    def _wait_or_read_on(self) -> None:
        if self._reading is not None:
            self._reading.result()  # what went wrong there is raised here, each time
            self._reading = None
        else:
            self._read_on()

    def _read_ahead_of(self, index: int) -> None:
        """Have the worker read until enough is ready beyond `index`."""
        target = index + self._ahead_tokens
        is_idle = self._reading is None or (self._reading.done() and self._failure is None)
        if is_idle and self._ahead_tokens and self._is_short_of(target):
            self._reading = self._worker.submit(self._read_up_to, target)

    def _read_up_to(self, target: int) -> None:
        while self._is_short_of(target):
            self._read_on()

    def _is_short_of(self, index: int) -> bool:
        return not self._has_ended and index >= self._kept_before[-1]

    def _read_on(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._take(self._text.next_batch())
        except Exception as error:
            # Kept: the text's iterator is at its end now, which would pass for the text's end.
            self._failure = error
            raise

    def _take(self, batch: list[TokenizedPiece]) -> None:
        for piece in batch:
            self._num_tokens += len(piece.token_ids)
            held_out = piece.is_held_out_candidate and not self._is_held_out_full
            (self._held_out if held_out else self._train).add(piece)
        is_last = len(batch) < TOKENIZE_PIECES
        while len(self._train) >= self._window_contexts:
            self._close_window(self._window_contexts)
        if is_last and len(self._train):
            self._close_window(len(self._train))
        # Not before the last window is there: from now on the other thread divides by their sum.
        self._has_ended = is_last

    def _close_window(self, num_contexts: int) -> None:
        window_CT = self._train.take(num_contexts)
        with self._bank_lock:
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

    def add(self, piece: TokenizedPiece) -> None:
        # A piece whose neighbour went to the other half does not continue anything.
        continues = not piece.starts_document and piece.index == self._last_index + 1
        self._last_index = piece.index
        tokens_CT = self._packer.add(piece.token_ids, continues=continues)
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
