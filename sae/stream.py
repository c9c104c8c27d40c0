"""Activations of a language model in shuffled batches, each a function of seed and position.

A torch module. Shape suffixes: C = contexts, T = context length, B = tokens in the batch,
S = tokens in a shuffle block, D = width at the hook.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from sae.activation_cache.blocks import BlockCache
from sae.activation_cache.identity import open_cache, pass_record
from sae.activation_cache.stored import Stored, storage_dtype, storage_record
from sae.block_maker import Block, BlockMaker, UnfinishedBlock
from sae.device_clock import DeviceClock
from sae.held_out import HeldOut
from sae.lanes import Lane, MainLane, has_room, side_lane
from sae.language_model import LanguageModel, cache_dir
from sae.packed_text import WINDOW_TOKENS, PackedText
from sae.packing import Packing
from sae.pieces import HELD_OUT_EVERY, HELD_OUT_REMAINDER, PIECE_CHARS, cut_documents
from sae.sources import open_source
from sae.stream_errors import BadData
from sae.stream_spec import StreamSpec
from sae.stream_tokenizer import StreamTokenizer
from sae.token_order import TokenOrder

logger = logging.getLogger(__name__)

STATISTICS_ROWS = 4096
"""Rows turned into float64 at a time."""
AHEAD_BLOCKS = 2
"""Shuffle blocks whose tokens are ready beyond the one that is asked for."""


class ActivationStream:
    """Endless batches of activations at several hooks, from one forward pass.

    Only the newest shuffle block is kept, on the model's device, and on CUDA the next one, which is
    made while this one is trained on; both in the model's precision, or the cache's.
    """

    def __init__(
        self,
        spec: StreamSpec,
        device: str | torch.device | None = None,
        language_model: LanguageModel | None = None,
        side: Lane | None = None,
    ) -> None:
        """Load the model and read as much text as one batch and the held-out part take.

        Args:
            device: overrides the one in the spec.
            language_model: one that is loaded already, and is what `spec.model` says.
            side: where the next block is made meanwhile; by itself a second stream of a GPU.

        Raises BadModel, BadData or UnknownHook.
        """
        self.spec = spec
        self._source = open_source(spec.data)
        self._source.check()
        target = spec.device if device is None else device
        self.language_model = language_model or LanguageModel.load(spec.model, target, spec.hooks)
        for hook in spec.hooks:
            self.language_model.path_of(hook)
        self._check_context()
        self.language_model.try_out(spec.lm_batch_contexts, spec.data.context, spec.hooks)
        self._packing = _packing(self.language_model, spec.data.context)
        self._tokenizer = StreamTokenizer(self.language_model.tokenizer)
        self._text = self._open_text()
        self._maker = BlockMaker(
            TokenOrder(self._text, spec.seed, spec.block_tokens),
            self._forward,
            spec.lm_batch_contexts,
            storage_dtype(spec.cache, self.language_model.dtype),
            self.device,
            open_cache(spec, self.language_model),
        )
        self._side = (side or side_lane(self.device)) if spec.overlap else None
        self._block: Block | None = None
        self._next: UnfinishedBlock | None = None
        self._statistics: dict[str, tuple[float, Tensor]] = {}
        self._clock = DeviceClock(self.language_model.device)
        self._lock = self.language_model.lock
        self.lm_tokens = 0
        """Tokens that went through the language model so far, special ones included."""
        self.held_out = HeldOut(
            self._text.held_out_CT,
            self._packing,
            self._forward,
            self.device,
            spec.lm_batch_contexts,
            self.language_model.lock,
        )
        self._warn_of_repetition()

    @property
    def hooks(self) -> tuple[str, ...]:
        """Hooks as the spec names them: the keys of every batch."""
        return self.spec.hooks

    @property
    def batch_tokens(self) -> int:
        """Tokens in each batch."""
        return self.spec.batch_tokens

    @property
    def device(self) -> torch.device:
        """Where activations are."""
        return self.language_model.device

    @property
    def cache(self) -> BlockCache | None:
        """Where blocks are kept on disk, if anywhere."""
        return self._maker.cache

    @property
    def lm_seconds(self) -> float:
        """Time spent in forward passes of the language model so far."""
        return self._clock.seconds

    def d_in(self, hook: str) -> int:
        """Width of the activations at a hook."""
        return self.language_model.d_in(hook)

    def batch_at(self, position: int) -> dict[str, Tensor]:
        """Compute the batch at a position: hook to [B, D] fp32, on the stream's device.

        Equal positions give equal batches (bit for bit on a CPU with the same number of threads),
        whatever was asked for before. Raises ValueError for a negative position.
        """
        if position < 0:
            raise ValueError(f"position={position} is before the start; positions count from 0")
        index, offset = divmod(position, self.spec.block_batches)
        rows = slice(offset * self.batch_tokens, (offset + 1) * self.batch_tokens)
        with self._lock:
            block = self._block_at(index)
            self._work_ahead(block, (offset + 1) / self.spec.block_batches)
            return block.batch(rows)

    def epoch_at(self, position: int) -> int:
        """How often the whole text was seen before the batch at this position."""
        with self._lock:
            return self._maker.order.epoch_at(position * self.batch_tokens)

    def scale(self, hook: str) -> float:
        """Give sqrt(d_in) over the mean norm of the first block's activations.

        Multiplied by it, activations have an average norm of sqrt(d_in): SAELens's
        `expected_average_only_in`, estimated over the first block instead of 1000 batches.
        """
        mean_norm = self._statistics_of(hook)[0]
        return math.sqrt(self.d_in(hook)) / mean_norm

    def mean(self, hook: str) -> Tensor:
        """Mean activation over the first block, [D] fp32."""
        return self._statistics_of(hook)[1].clone()

    def packing_record(self) -> dict[str, Any]:
        """Say as JSON how text became contexts and what is held out."""
        return {
            **self._packing.record(),
            "piece_chars": PIECE_CHARS,
            "held_out_pieces": f"index % {HELD_OUT_EVERY} == {HELD_OUT_REMAINDER} until full",
            "held_out_tokens": self.held_out.num_tokens,
            "held_out_sha256": self.held_out.fingerprint,
        }

    def record(self) -> dict[str, Any]:
        """Say as JSON everything that the content of the batches depends on."""
        spec = self.spec
        return {
            "key": spec.key,
            **pass_record(spec, self.language_model),
            "fallbacks": list(self.language_model.fallbacks),
            "tokenizer_sha256": self._tokenizer.sha256,
            "data": dict(self._source.fingerprint()),
            "packing": self.packing_record(),
            "seed": spec.seed,
            "batch_tokens": spec.batch_tokens,
            "buffer_tokens": spec.block_tokens,
            "cache": None if spec.cache is None else storage_record(self._maker.dtype),
        }

    def _open_text(self) -> PackedText:
        spec = self.spec
        # On a GPU a window may be trained on faster than two blocks' worth of text is tokenized.
        is_fast = self.device.type == "cuda"
        return PackedText(
            cut_documents(self._source.documents()),
            self._tokenizer,
            self._packing,
            held_out_tokens=spec.held_out_tokens,
            batch_tokens=spec.batch_tokens,
            ahead_tokens=AHEAD_BLOCKS * spec.block_tokens + (WINDOW_TOKENS if is_fast else 0),
            cache=self._tokenizer.cache(cache_dir() / "tokens", self._source.stamp()),
        )

    def _forward(self, tokens_CT: Tensor) -> dict[str, Tensor]:
        with self.language_model.lock, self._clock:
            self.lm_tokens += tokens_CT.numel()
            return self.language_model.activations(tokens_CT, self.hooks)

    def _block_at(self, index: int) -> Block:
        if self._block is None or self._block.index != index:
            unfinished, self._next = self._next, None
            # Freed before another one is made: there may be no memory for two.
            self._block = None
            if unfinished is None or unfinished.index != index:
                unfinished = self._maker.start(index, MainLane())
            self._block = unfinished.finish()
            if index == 0 and not self._statistics:
                stored = self._block.stored_by_hook
                self._statistics = {hook: _statistics(each) for hook, each in stored.items()}
        return self._block

    def _work_ahead(self, block: Block, share: float) -> None:
        """Make as much of the next block as was used of this one, beside the steps."""
        if self._side is None:
            return
        try:
            if self._next is None:
                if not has_room(self.device, block.num_bytes):
                    return
                self._next = self._maker.start(block.index + 1, self._side)
            self._next.work(share)
        except torch.OutOfMemoryError:
            self._next, self._side = None, None
            logger.warning("no memory for a second block: passes and steps take turns from now on")

    def _statistics_of(self, hook: str) -> tuple[float, Tensor]:
        with self._lock:
            if not self._statistics:
                self._block_at(0)
            if hook not in self._statistics:
                raise ValueError(
                    f"hook {hook!r} is not in this stream; its hooks are {', '.join(self.hooks)}"
                )
            return self._statistics[hook]

    def _check_context(self) -> None:
        limit, context = self.language_model.max_context, self.spec.data.context
        if limit is not None and context > limit:
            raise BadData(
                f"context={context} exceeds the {limit} tokens that {self.spec.model.label} was "
                "made for; lower `context`"
            )

    def _warn_of_repetition(self) -> None:
        num_kept = self._text.num_kept
        if num_kept is not None and num_kept < self.spec.block_tokens:
            logger.warning(
                "the text has %d tokens to train on and a shuffle block takes %d: "
                "tokens repeat within a block",
                num_kept,
                self.spec.block_tokens,
            )


def _packing(model: LanguageModel, context: int) -> Packing:
    bos, eos = model.bos_token_id, model.eos_token_id
    return Packing(context, bos, bos if eos is None else eos, model.special_token_ids)


def _statistics(stored: Stored) -> tuple[float, Tensor]:
    """Mean norm and mean, both taken in float64."""
    num_rows, width = stored.values_SD.shape
    device = stored.values_SD.device
    norm_sum = torch.zeros((), dtype=torch.float64, device=device)
    sum_D = torch.zeros(width, dtype=torch.float64, device=device)
    for start in range(0, num_rows, STATISTICS_ROWS):
        wide_SD = stored.rows(slice(start, start + STATISTICS_ROWS)).double()
        norm_sum += wide_SD.norm(dim=1).sum()
        sum_D += wide_SD.sum(dim=0)
    return norm_sum.item() / num_rows, (sum_D / num_rows).float()
