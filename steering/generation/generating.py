"""Generate answers batch by batch, with a KV cache, under edits.

A torch module. Shape suffixes: N = rows of a batch, S = tokens so far, V = vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from sae.language_model import LanguageModel
from steering.edits import AnyEdit, Steering, steered
from steering.errors import BadSteeringInput
from steering.generation.answer import Generated, OnRow
from steering.generation.prompts import encode_prompts, left_padded, stop_tokens
from steering.generation.sampling import choose_tokens, row_keys
from steering.generation.spec import GenerationSpec

__all__ = ["generate", "only_last_logits"]

logger = logging.getLogger(__name__)


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    spec: GenerationSpec,
    *,
    edits: Sequence[AnyEdit] = (),
    seeds: Sequence[int] | None = None,
    on_row: OnRow | None = None,
) -> list[Generated]:
    """An answer to each prompt, in the order of the prompts.

    A row's answer depends on its prompt, its seed, its edits and the spec, not on the rows beside
    it, up to logits that differ between batches in their last bits. Prompts of like length run
    together; a row that is done leaves its batch.

    Args:
        edits: those with settings a row have one for each prompt.
        seeds: one a prompt; their places by default. Give them when only some of a set of prompts
            are generated, as after an interruption, to get what the whole set would have given.
        on_row: for progress, and to keep what is done.

    Raises:
        BadSteeringInput: a prompt that cannot be used or is too long, settings for another number
            of rows.
        UnknownHook: an edit at a hook that the model lacks.
    """
    encoded = encode_prompts(lm, prompts, spec)
    seeds = range(len(prompts)) if seeds is None else seeds
    _check(lm, encoded, spec, edits, seeds)
    # What may fall back does so before there is a half-filled cache.
    lm.try_out(1, 2, [])
    order = sorted(range(len(encoded)), key=lambda row: (-len(encoded[row]), row))
    answers: dict[int, Generated] = {}
    for first in range(0, len(order), spec.rows):
        rows = order[first : first + spec.rows]
        batch = _Batch(lm, spec, [encoded[row] for row in rows], [seeds[row] for row in rows])
        own_edits = [edit.rows(rows) for edit in edits]
        with lm.uncompiled(), steered(lm, own_edits) as steering:
            for place, answer in batch.run(steering):
                answers[rows[place]] = answer
                if on_row is not None:
                    on_row(rows[place], answer)
        logger.debug("%d of %d answers generated", len(answers), len(prompts))
    return [answers[row] for row in range(len(prompts))]


class _Batch:
    """Some prompts that are answered together."""

    def __init__(
        self,
        lm: LanguageModel,
        spec: GenerationSpec,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
    ) -> None:
        self._lm = lm
        self._spec = spec
        self._padded = left_padded(lm, prompts)
        self._keys_N = row_keys(spec.seed, seeds).to(lm.device)
        self._stop = stop_tokens(lm)
        self._said: list[list[int]] = [[] for _ in prompts]

    def run(self, steering: Steering) -> Generator[tuple[int, Generated], None, None]:
        """Places of rows in the batch and their answers, as they are done."""
        cache = DynamicCache(config=self._lm.model.config)
        ids_NT, mask_NS = self._padded.ids_NT, self._padded.is_token_NT
        position_NT, keys_N = self._padded.position_NT, self._keys_N
        places = list(range(len(ids_NT)))
        for step in range(self._spec.max_new_tokens):
            logits_NV = self._last_logits(ids_NT, mask_NS, position_NT, cache)
            next_N = choose_tokens(
                logits_NV,
                keys_N,
                step,
                temperature=self._spec.temperature,
                top_p=self._spec.top_p,
            )
            going = yield from self._take(places, next_N.tolist(), step)
            if not going:
                return
            if len(going) < len(places):
                kept = torch.tensor(going, device=next_N.device)
                cache.batch_select_indices(kept)
                steering.keep(kept)
                next_N, mask_NS, keys_N = next_N[kept], mask_NS[kept], keys_N[kept]
                position_NT = position_NT[kept]
                places = [places[place] for place in going]
            ids_NT = next_N.unsqueeze(-1)
            mask_NS = torch.cat([mask_NS, torch.ones_like(ids_NT)], dim=1)
            position_NT = position_NT[:, -1:] + 1

    def _take(
        self, places: Sequence[int], tokens: Sequence[int], step: int
    ) -> Generator[tuple[int, Generated], None, list[int]]:
        """Note the new tokens; yields rows that are done, returns which of `places` go on."""
        going: list[int] = []
        for index, (place, token) in enumerate(zip(places, tokens, strict=True)):
            is_end = token in self._stop
            if not is_end:
                self._said[place].append(token)
            if is_end or step + 1 == self._spec.max_new_tokens:
                yield place, self._answer(place, is_end)
            else:
                going.append(index)
        return going

    def _answer(self, place: int, ended: bool) -> Generated:
        tokens = self._said[place]
        text = self._lm.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Generated(text, tuple(tokens), ended)

    def _last_logits(
        self, ids_NT: Tensor, mask_NS: Tensor, position_NT: Tensor, cache: Any
    ) -> Tensor:
        said = self._lm.forward(
            input_ids=ids_NT,
            attention_mask=mask_NS,
            position_ids=position_NT,
            past_key_values=cache,
            use_cache=True,
            **only_last_logits(self._lm, 1),
        )
        logits_NV: Tensor = said.logits[:, -1]
        return logits_NV


def only_last_logits(lm: LanguageModel, num_tokens: int) -> dict[str, int]:
    """What makes a pass compute the logits of its last tokens alone, where the model can."""
    known = inspect.signature(lm.model.forward).parameters
    return {"logits_to_keep": num_tokens} if "logits_to_keep" in known else {}


def _check(
    lm: LanguageModel,
    encoded: Sequence[Sequence[int]],
    spec: GenerationSpec,
    edits: Sequence[AnyEdit],
    seeds: Sequence[int],
) -> None:
    if len(seeds) != len(encoded):
        raise BadSteeringInput(
            f"there are {len(seeds)} seeds for {len(encoded)} prompts; give one a prompt"
        )
    for edit in edits:
        if edit.num_rows not in (None, len(encoded)):
            raise BadSteeringInput(
                f"an edit at {edit.hook!r} has settings for {edit.num_rows} rows, and there are "
                f"{len(encoded)} prompts; give one for all, or one a prompt"
            )
    limit = lm.max_context
    for row, ids in enumerate(encoded):
        if limit is not None and len(ids) + spec.max_new_tokens > limit:
            raise BadSteeringInput(
                f"prompt {row} has {len(ids)} tokens, which with max_new_tokens="
                f"{spec.max_new_tokens} exceeds the model's context of {limit}; shorten either"
            )
