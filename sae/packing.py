"""Tokens into contexts of equal length. Shape suffixes: C = contexts, T = context length."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

MEMORY_LIMIT_BYTES = 512 << 20
"""Tokens beyond this go to an unnamed temporary file: an endless dataset must not fill memory."""


@dataclass(frozen=True)
class Packing:
    """The rules by which token sequences are joined and cut."""

    context: int
    bos_token_id: int | None
    """First token of each context, if the tokenizer has one."""
    separator_id: int | None
    """Put between documents: end-of-sequence, else beginning-of-sequence, else nothing."""
    special_token_ids: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """Say the rules as JSON, for the record of an artefact."""
        return {
            "context": self.context,
            "bos_token_id": self.bos_token_id,
            "each_context_starts_with_bos": self.bos_token_id is not None,
            "separator_id": self.separator_id,
            "special_token_ids_left_out": list(self.special_token_ids),
            "first_position_left_out": True,
            "incomplete_last_context_dropped": True,
        }

    def kept(self, tokens_CT: Tokens) -> NDArray[np.bool_]:
        """Tell which positions count: neither special tokens nor the first position; [C, T]."""
        kept_CT = ~np.isin(tokens_CT, np.asarray(self.special_token_ids, dtype=np.int32))
        kept_CT[:, 0] = False
        return kept_CT


class Packer:
    """Joins token sequences and cuts the result into contexts."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._rest: list[int] = []
        self._is_empty = True

    def add(self, token_ids: Sequence[int], *, continues: bool) -> Tokens:
        """Add a sequence; returns the contexts that it completes, [C, T] and often none.

        Args:
            continues: whether it goes on right where the last one ended, in the same document.
        """
        separator = self._packing.separator_id
        if not (continues or self._is_empty or separator is None):
            self._rest.append(separator)
        self._is_empty = False
        self._rest.extend(token_ids)
        bos = self._packing.bos_token_id
        body = self._packing.context - (0 if bos is None else 1)
        num_contexts = len(self._rest) // body
        taken = self._rest[: num_contexts * body]
        del self._rest[: num_contexts * body]
        tokens_CT = np.asarray(taken, dtype=np.int32).reshape(num_contexts, body)
        if bos is None:
            return tokens_CT
        return np.insert(tokens_CT, 0, bos, axis=1)


class ContextBank:
    """Windows of contexts, in memory up to a limit and in a temporary file beyond."""

    def __init__(self, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._windows: list[Tokens | tuple[int, tuple[int, ...]]] = []
        self._bytes_left = memory_limit_bytes
        self._file: IO[bytes] | None = None

    def append(self, window_CT: Tokens) -> None:
        """Keep one more window."""
        if window_CT.nbytes <= self._bytes_left:
            self._bytes_left -= window_CT.nbytes
            self._windows.append(window_CT)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="saeq-tokens-")  # noqa: SIM115
        start = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(window_CT).tobytes())
        self._windows.append((start, window_CT.shape))

    def __getitem__(self, index: int) -> Tokens:
        kept = self._windows[index]
        if isinstance(kept, np.ndarray):
            return kept
        start, shape = kept
        assert self._file is not None
        self._file.seek(start)
        count = int(np.prod(shape))
        return np.frombuffer(self._file.read(count * 4), dtype=np.int32).reshape(shape)
