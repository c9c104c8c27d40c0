"""Activations of a language model in shuffled batches, each a function of seed and position.

A torch module. Shape suffixes: C = contexts, T = context length, B = tokens in the batch,
S = tokens in a shuffle block, D = width at the hook.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sae.device_clock import DeviceClock
from sae.held_out import HeldOut
from sae.language_model import LanguageModel
from sae.packed_text import PackedText
from sae.packing import Packing
from sae.pieces import HELD_OUT_EVERY, HELD_OUT_REMAINDER, PIECE_CHARS, cut_documents
from sae.sources import open_source
from sae.stream_errors import BadData
from sae.stream_spec import StreamSpec
from sae.token_order import TokenOrder

logger = logging.getLogger(__name__)

STATISTICS_ROWS = 4096
"""Rows turned into float64 at a time."""


class ActivationStream:
    """Endless batches of activations at several hooks, from one forward pass.

    Only the newest shuffle block is kept, on the model's device and in its precision.
    """

    def __init__(
        self,
        spec: StreamSpec,
        device: str | torch.device | None = None,
        language_model: LanguageModel | None = None,
    ) -> None:
        """Load the model and read as much text as one batch and the held-out part take.

        Args:
            device: overrides the one in the spec.
            language_model: one that is loaded already, and is what `spec.model` says.

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
        self._packing = _packing(self.language_model, spec.data.context)
        self._text = PackedText(
            cut_documents(self._source.documents()),
            self._tokenize,
            self._packing,
            held_out_tokens=spec.held_out_tokens,
            batch_tokens=spec.batch_tokens,
        )
        self._order = TokenOrder(self._text, spec.seed, spec.block_tokens)
        self._block: tuple[int, dict[str, Tensor]] | None = None
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
        block, offset = divmod(position, self.spec.block_batches)
        rows = slice(offset * self.batch_tokens, (offset + 1) * self.batch_tokens)
        with self._lock:
            return {
                hook: acts_SD[rows].to(torch.float32, copy=True)
                for hook, acts_SD in self._block_at(block).items()
            }

    def epoch_at(self, position: int) -> int:
        """How often the whole text was seen before the batch at this position."""
        with self._lock:
            return self._order.epoch_at(position * self.batch_tokens)

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
        model, spec = self.language_model, self.spec
        tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
        text = tokenizer.to_str() if tokenizer is not None else repr(model.tokenizer)
        return {
            "key": spec.key,
            "model": {
                "name": spec.model.label,
                "revision": model.files.revision,
                "weights_sha256": model.files.weights_sha256(),
                "dtype": str(model.dtype).removeprefix("torch."),
                "family": model.family,
            },
            "hooks": {hook: model.path_of(hook) for hook in spec.hooks},
            "tokenizer_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "data": dict(self._source.fingerprint()),
            "packing": self.packing_record(),
            "seed": spec.seed,
            "batch_tokens": spec.batch_tokens,
            "buffer_tokens": spec.block_tokens,
            "lm_batch_contexts": spec.lm_batch_contexts,
            "device": self.device.type,
            "num_threads": torch.get_num_threads(),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("torch", "transformers", "tokenizers", "numpy")
            },
        }

    def _tokenize(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        # verbose=False: pieces are longer than the model's limit on purpose.
        encoded = self.language_model.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        token_ids: Sequence[Sequence[int]] = encoded["input_ids"]
        return token_ids

    def _forward(self, tokens_CT: Tensor) -> dict[str, Tensor]:
        with self.language_model.lock, self._clock:
            self.lm_tokens += tokens_CT.numel()
            return self.language_model.activations(tokens_CT, self.hooks)

    def _block_at(self, index: int) -> dict[str, Tensor]:
        if self._block is None or self._block[0] != index:
            self._block = None  # Freed before the next one is made: there is never memory for two.
            self._block = (index, self._make_block(index))
            if index == 0 and not self._statistics:
                self._statistics = {h: _statistics(x_SD) for h, x_SD in self._block[1].items()}
        return self._block[1]

    @torch.no_grad()
    def _make_block(self, index: int) -> dict[str, Tensor]:
        block = self._order.block(index)
        context, num_tokens = block.tokens_CT.shape[1], self.spec.block_tokens
        tokens_CT = torch.from_numpy(block.tokens_CT).long().to(self.device)
        flat_index_S = torch.from_numpy(block.flat_index_S).to(self.device)
        slot_S = torch.from_numpy(block.slot_S).to(self.device)
        acts_SD_by_hook: dict[str, Tensor] = {}
        for start in range(0, len(tokens_CT), self.spec.lm_batch_contexts):
            part_CT = tokens_CT[start : start + self.spec.lm_batch_contexts]
            # Cut on the CPU: the device need not be waited for.
            edges = [start * context, (start + len(part_CT)) * context]
            first, last = block.flat_index_S.searchsorted(edges).tolist()
            rows = flat_index_S[first:last] - edges[0]
            for hook, acts_CTD in self._forward(part_CT).items():
                if hook not in acts_SD_by_hook:
                    acts_SD_by_hook[hook] = torch.empty(
                        (num_tokens, acts_CTD.shape[-1]), dtype=acts_CTD.dtype, device=self.device
                    )
                acts_RD = acts_CTD.flatten(0, 1).index_select(0, rows)
                acts_SD_by_hook[hook].index_copy_(0, slot_S[first:last], acts_RD)
        return acts_SD_by_hook

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


def _statistics(acts_SD: Tensor) -> tuple[float, Tensor]:
    """Mean norm and mean, both taken in float64."""
    norm_sum = torch.zeros((), dtype=torch.float64, device=acts_SD.device)
    sum_D = torch.zeros(acts_SD.shape[1], dtype=torch.float64, device=acts_SD.device)
    for part_SD in torch.split(acts_SD, STATISTICS_ROWS):
        wide_SD = part_SD.double()
        norm_sum += wide_SD.norm(dim=1).sum()
        sum_D += wide_SD.sum(dim=0)
    return norm_sum.item() / len(acts_SD), (sum_D / len(acts_SD)).float()
