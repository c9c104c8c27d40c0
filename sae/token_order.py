"""The order in which kept tokens come: a function of seed and position alone.

Shape suffixes: C = contexts, T = context length, S = tokens in a shuffle block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae.packed_text import PackedText
from sae.packing import Tokens

# First entropy word of each generator, so that no two of them ever draw the same numbers.
WINDOW_STREAM = 1
BLOCK_STREAM = 2


@dataclass(frozen=True)
class BlockTokens:
    """The contexts that a shuffle block needs, and where its tokens are in them."""

    tokens_CT: Tokens
    flat_index_S: NDArray[np.int64]
    """Ascending indices of the block's tokens in the flattened [C * T] contexts."""
    slot_S: NDArray[np.int64]
    """Where each of them goes in the shuffled block."""


class TokenOrder:
    """Kept tokens in a fixed endless order, cut into blocks of `block_tokens`.

    All kept tokens of one epoch are counted through, context by context in the permuted order of
    their windows; block j is the tokens from j * S to (j + 1) * S of that count, whatever number
    of special tokens lies between. So no token is lost or seen twice in an epoch, and only a
    context that two blocks share takes part in two forward passes.
    """

    def __init__(self, text: PackedText, seed: int, block_tokens: int) -> None:
        self._text = text
        self._seed = seed
        self._block_tokens = block_tokens

    def epoch_at(self, token: int) -> int:
        """How often the whole text was seen before this token."""
        return self._text.place(token)[0]

    def block(self, index: int) -> BlockTokens:
        """Collect the tokens of a block; reads the text on as far as needed."""
        start, missing = index * self._block_tokens, self._block_tokens
        contexts: list[Tokens] = []
        flat_indices: list[NDArray[np.int64]] = []
        num_positions = 0
        while missing:
            epoch, window, offset = self._text.place(start)
            tokens_CT, flat_index = self._part(epoch, window, offset, missing)
            contexts.append(tokens_CT)
            flat_indices.append(flat_index + num_positions)
            num_positions += tokens_CT.size
            start += len(flat_index)
            missing -= len(flat_index)
        rng = np.random.default_rng([BLOCK_STREAM, self._seed, index])
        return BlockTokens(
            np.concatenate(contexts),
            np.concatenate(flat_indices),
            rng.permutation(self._block_tokens),
        )

    def _part(
        self, epoch: int, window: int, offset: int, limit: int
    ) -> tuple[Tokens, NDArray[np.int64]]:
        """Take up to `limit` kept tokens of one window, from the `offset`-th on."""
        tokens_CT = self._text.window(window)
        rng = np.random.default_rng([WINDOW_STREAM, self._seed, epoch, window])
        tokens_CT = tokens_CT[rng.permutation(len(tokens_CT))]
        flat_index = np.flatnonzero(self._text.packing.kept(tokens_CT))[offset : offset + limit]
        context = tokens_CT.shape[1]
        first, last = int(flat_index[0]) // context, int(flat_index[-1]) // context
        return tokens_CT[first : last + 1], flat_index - first * context
