"""A model under edits: hooks that know each token's absolute position, and leave no trace.

A torch module. Shape suffixes: N = rows of a batch, T = tokens of a pass, M = edited tokens,
D = width at the hook.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from sae.module_hooks import See
from steering.edits.base import Edit
from steering.edits.conditions import Condition, When
from steering.edits.positions import PassTokens, chosen_NT, tokens_of_pass
from steering.edits.row_wise import per_row
from steering.errors import BadSteeringInput

__all__ = ["AnyEdit", "Steering", "steered"]

AnyEdit = Edit | When


@contextmanager
def steered(
    lm: LanguageModel, edits: Sequence[AnyEdit], *, prompt_lengths: Tensor | None = None
) -> Iterator[Steering]:
    """Every pass of the model within is edited, in the order given; outer contexts come first.

    A pass without cached tokens begins new prompts: its tokens are the prompt, and those of later
    passes with its cache are generated. Nothing of this is shared with other models or contexts,
    and nothing is left afterwards, whatever was raised. Other threads wait: the model's lock is
    held.

    Args:
        prompt_lengths: tokens of each row's prompt, int [N], without padding: for passes that hold
            prompt and answer together, or that are padded and have no attention mask.

    Raises UnknownHook; passes raise BadSteeringInput where an edit does not fit the batch.
    """
    steering = Steering(lm, edits, prompt_lengths)
    with lm.hooked(steering.functions()):
        body = lm.model.base_model
        handle = body.register_forward_pre_hook(steering.begin_pass, with_kwargs=True)
        try:
            yield steering
        finally:
            handle.remove()


class Steering:
    """Edits at work in one context, and what is known of the batch that is being run."""

    def __init__(
        self, lm: LanguageModel, edits: Sequence[AnyEdit], prompt_lengths: Tensor | None
    ) -> None:
        moved = [edit.to(lm.device) for edit in edits]
        self._steps = [_unnested(edit) for edit in moved]
        self._lm = lm
        self._signature = inspect.signature(lm.model.base_model.forward)
        self._given_length_N = prompt_lengths
        self._prompt_length_N: Tensor | None = prompt_lengths
        self._tokens: PassTokens | None = None
        self._decisions: dict[tuple[int, int], Tensor] = {}

    def functions(self) -> list[tuple[str, See]]:
        """Hooks, and what is to be called there: a condition before the edit that asks for it."""
        found: list[tuple[str, See]] = []
        for step, (edit, conditions) in enumerate(self._steps):
            for place, condition in enumerate(conditions):
                found.append((condition.hook, partial(self._judge, (step, place))))
            found.append((edit.hook, partial(self._edit, step)))
        return found

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, as when finished ones leave it."""
        self._steps = [
            (edit.rows(rows), [condition.rows(rows) for condition in conditions])
            for edit, conditions in self._steps
        ]
        if self._prompt_length_N is not None:
            self._prompt_length_N = self._prompt_length_N[rows.to(self._prompt_length_N.device)]
        if self._given_length_N is not None:
            self._given_length_N = self._given_length_N[rows.to(self._given_length_N.device)]
        self._decisions = {
            key: decision[rows.to(decision.device)] for key, decision in self._decisions.items()
        }

    def begin_pass(self, module: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A forward pre-hook of the model's body: what tokens the pass has."""
        del module
        bound = self._signature.bind_partial(*args, **named).arguments
        said = {**bound.get("kwargs", {}), **bound}
        tokens = tokens_of_pass(said, self._lm.bos_token_id)
        if tokens.num_cached == 0:
            self._decisions = {}
            self._prompt_length_N = self._given_length_N
            if self._prompt_length_N is None:
                self._prompt_length_N = tokens.num_tokens_N
        elif self._prompt_length_N is None:
            # Entered with a filled cache: what is in it was the prompt.
            self._prompt_length_N = tokens.num_tokens_N - tokens.is_token_NT.sum(dim=1)
        self._tokens = tokens
        self._check_rows(len(tokens.position_NT))

    def _judge(self, key: tuple[int, int], h_NTD: Tensor) -> None:
        step, place = key
        condition = self._steps[step][1][place]
        tokens = self._tokens_of(condition, h_NTD)
        assert self._prompt_length_N is not None
        exact_NTD = _exact(h_NTD)
        if condition.decided == "token":
            self._decisions[key] = condition.holds_for_tokens(exact_NTD)
        elif tokens.num_cached == 0:
            decision_N = condition.holds_for_prompts(exact_NTD, tokens, self._prompt_length_N)
            self._decisions[key] = decision_N.unsqueeze(-1)

    def _edit(self, step: int, h_NTD: Tensor) -> Tensor | None:
        edit, conditions = self._steps[step]
        tokens = self._tokens_of(edit, h_NTD)
        assert self._prompt_length_N is not None
        is_edited_NT = chosen_NT(
            edit.positions, tokens, self._prompt_length_N, skip_bos=edit.skip_bos
        ).to(h_NTD.device)
        for place, condition in enumerate(conditions):
            is_edited_NT = is_edited_NT & self._decision((step, place), condition, edit).to(
                h_NTD.device
            )
        row_M, token_M = is_edited_NT.nonzero(as_tuple=True)
        if len(row_M) == 0:
            return None
        old_MD = _exact(h_NTD[row_M, token_M])
        strength = per_row(edit.strength, row_M, old_MD, shared_ndim=0)
        new_MD = edit.change(old_MD, row_M, strength)
        return h_NTD.index_put((row_M, token_M), new_MD.to(h_NTD.dtype))

    def _decision(self, key: tuple[int, int], condition: Condition, edit: Edit) -> Tensor:
        found = self._decisions.get(key)
        if found is None:
            raise BadSteeringInput(
                f"a condition at {condition.hook!r} has not been read when the edit at "
                f"{edit.hook!r} asks for it; read it no later in the model than the edit writes, "
                "and let the prompt itself run within `steered`"
            )
        return found

    def _tokens_of(self, owner: Edit | Condition, h_NTD: Tensor) -> PassTokens:
        if owner.width not in (None, h_NTD.shape[-1]):
            raise BadSteeringInput(
                f"{type(owner).__name__} is for activations of width {owner.width}, and "
                f"{owner.hook!r} has {h_NTD.shape[-1]}; take a vector or SAE of this model and hook"
            )
        tokens = self._tokens
        if tokens is None or tokens.position_NT.shape != h_NTD.shape[:2]:
            raise BadSteeringInput(
                f"activations {list(h_NTD.shape)} at an edited hook do not belong to the tokens of "
                "the pass; edit at a module that runs once a pass, for all its tokens"
            )
        return tokens

    def _check_rows(self, num_rows: int) -> None:
        for edit, conditions in self._steps:
            owners: list[Edit | Condition] = [edit, *conditions]
            for owner in owners:
                if owner.num_rows not in (None, num_rows):
                    raise BadSteeringInput(
                        f"{type(owner).__name__} at {owner.hook!r} has settings for "
                        f"{owner.num_rows} rows, and the batch has {num_rows}; use .rows(indices)"
                    )
        if self._prompt_length_N is not None and len(self._prompt_length_N) != num_rows:
            raise BadSteeringInput(
                f"prompt lengths are known for {len(self._prompt_length_N)} rows, and the batch "
                f"has {num_rows}; give one a row, and call keep() when rows leave the batch"
            )


def _unnested(edit: AnyEdit) -> tuple[Edit, list[Condition]]:
    conditions: list[Condition] = []
    while isinstance(edit, When):
        conditions.append(edit.condition)
        edit = edit.edit
    return edit, conditions


def _exact(h_D: Tensor) -> Tensor:
    return h_D.to(torch.promote_types(h_D.dtype, torch.float32))
