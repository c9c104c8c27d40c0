"""Makes shuffle blocks of activations, part by part: from the disk, or by the language model.

A torch module. Shape suffixes: C = contexts, T = context length, B = tokens in the batch,
S = tokens in a shuffle block, R = rows of one pass, D = width at the hook.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae.activation_cache.stored import Stored
from sae.lanes import Lane
from sae.token_order import TokenOrder

if TYPE_CHECKING:
    from sae.activation_cache.blocks import BlockCache

Forward = Callable[[Tensor], dict[str, Tensor]]
"""Token ids [C, T] to activations [C, T, D] of each hook."""


@dataclass(frozen=True)
class Block:
    """A shuffle block's activations at each hook, on the device."""

    index: int
    stored_by_hook: dict[str, Stored]

    def batch(self, rows: slice) -> dict[str, Tensor]:
        """Hook to [B, D] fp32, copies."""
        return {hook: stored.rows(rows) for hook, stored in self.stored_by_hook.items()}

    @property
    def num_bytes(self) -> int:
        """Bytes that it holds."""
        return sum(stored.num_bytes for stored in self.stored_by_hook.values())


@dataclass(frozen=True)
class BlockMaker:
    """What it takes to make any block of a stream."""

    order: TokenOrder
    forward: Forward
    lm_batch_contexts: int
    dtype: torch.dtype
    """In which activations are kept."""
    device: torch.device
    cache: BlockCache | None

    def start(self, index: int, lane: Lane) -> UnfinishedBlock:
        """Begin a block: its tokens are collected, and looked up in the cache.

        Args:
            lane: where its passes are queued.
        """
        return UnfinishedBlock(self, index, lane)


class UnfinishedBlock:
    """A block of which some passes have been queued. Not for two threads at once."""

    @torch.no_grad()
    def __init__(self, maker: BlockMaker, index: int, lane: Lane) -> None:
        self.index = index
        self._maker, self._lane = maker, lane
        self._tokens = maker.order.block(index)
        self._stored: dict[str, Stored] = {}
        self._num_contexts_done = 0
        cache = maker.cache
        self._name = "" if cache is None else cache.name_of(index, self._tokens)
        self._reading = None if cache is None else cache.start_reading(self._name)
        self._is_read = False
        with lane.working():
            self._tokens_CT = torch.from_numpy(self._tokens.tokens_CT).long().to(maker.device)
            self._flat_index_S = torch.from_numpy(self._tokens.flat_index_S).to(maker.device)
            self._slot_S = torch.from_numpy(self._tokens.slot_S).to(maker.device)

    def work(self, share: float) -> None:
        """Queue passes until at least this share of the block's is queued; does not wait."""
        if self._reading is not None and not self._reading.done():
            return
        self._take_what_was_read()
        target = math.ceil(share * len(self._tokens_CT))
        with self._lane.working():
            while not self._is_read and self._num_contexts_done < target:
                self._pass()

    def finish(self) -> Block:
        """Queue what is left, and hand the block over to the caller's lane."""
        if self._reading is not None:
            self._reading.exception()  # waits
        self.work(1.0)
        stored_by_hook = self._stored
        self._lane.hand_over([t for stored in stored_by_hook.values() for t in stored.tensors])
        if self._maker.cache is not None and not self._is_read:
            self._maker.cache.write_soon(self._name, stored_by_hook)
        return Block(self.index, stored_by_hook)

    def _take_what_was_read(self) -> None:
        if self._reading is None:
            return
        found, self._reading = self._reading.result(), None
        if found is None:
            return
        device = self._maker.device
        with self._lane.working():
            for hook, stored in found.items():
                scale_S = None if stored.scale_S is None else stored.scale_S.to(device)
                self._stored[hook] = Stored(stored.values_SD.to(device), scale_S)
        self._is_read = True

    @torch.no_grad()
    def _pass(self) -> None:
        first_context = self._num_contexts_done
        part_CT = self._tokens_CT[first_context : first_context + self._maker.lm_batch_contexts]
        self._num_contexts_done += len(part_CT)
        context = part_CT.shape[1]
        # Cut on the CPU: the device need not be waited for.
        edges = [first_context * context, self._num_contexts_done * context]
        first, last = self._tokens.flat_index_S.searchsorted(edges).tolist()
        self._put(
            self._maker.forward(part_CT).items(),
            self._flat_index_S[first:last] - edges[0],
            self._slot_S[first:last],
        )

    def _put(
        self, acts_by_hook: Iterable[tuple[str, Tensor]], row_R: Tensor, slot_R: Tensor
    ) -> None:
        for hook, acts_CTD in acts_by_hook:
            if hook not in self._stored:
                self._stored[hook] = Stored.empty(
                    len(self._slot_S), acts_CTD.shape[-1], self._maker.dtype, self._maker.device
                )
            self._stored[hook].put(slot_R, acts_CTD.flatten(0, 1).index_select(0, row_R))
