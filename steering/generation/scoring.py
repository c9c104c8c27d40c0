"""How likely a model finds answers, given their prompts.

A torch module. Shape suffixes: N = rows of a batch, A = tokens of the longest answer,
V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.edits import AnyEdit, steered
from steering.errors import BadSteeringInput
from steering.generation.answer import Generated
from steering.generation.generating import only_last_logits
from steering.generation.prompts import encode_prompts, left_padded
from steering.generation.spec import GenerationSpec

__all__ = ["answer_logprobs"]

_MAX_LOGITS = 1 << 26
"""Of a batch: 256 MiB in float32."""


@torch.inference_mode()
def answer_logprobs(
    lm: LanguageModel,
    prompts: Sequence[str],
    answers: Sequence[Generated | Sequence[int]],
    spec: GenerationSpec,
    *,
    edits: Sequence[AnyEdit] = (),
    batch_tokens: int = 4096,
) -> list[Tensor]:
    """Log-probability (nats) of each answer token, given its prompt and the tokens before it.

    The model is as it is, unless `edits` are given, and the prompt's own tokens do not count: so
    answers of steered and of unsteered models compare (AxBench's perplexities do not).

    Args:
        answers: what was generated, or its token ids, for each prompt; may be empty.
        spec: for `chat` and `system`, as in generating; sampling settings play no part.
        batch_tokens: most tokens of a batch, padding included; a longer row is alone.

    Returns float32 [tokens of the answer] on the CPU for each prompt, temperature 1.

    Raises:
        BadSteeringInput: not one answer a prompt, a row longer than the model's context.
    """
    tokens = [list(a.tokens) if isinstance(a, Generated) else [int(t) for t in a] for a in answers]
    if len(tokens) != len(prompts):
        raise BadSteeringInput(f"{len(tokens)} answers to {len(prompts)} prompts; give one each")
    encoded = encode_prompts(lm, prompts, spec)
    _check_lengths(lm, encoded, tokens)
    found = [torch.zeros(0) for _ in prompts]
    for rows in _batches(lm, encoded, tokens, batch_tokens):
        own_edits = [edit.rows(rows) for edit in edits]
        lengths_N = torch.tensor([len(encoded[row]) for row in rows], device=lm.device)
        with lm.uncompiled(), steered(lm, own_edits, prompt_lengths=lengths_N):
            scored = _score(lm, [encoded[row] for row in rows], [tokens[row] for row in rows])
        for row, logprobs_A in zip(rows, scored, strict=True):
            found[row] = logprobs_A
    return found


def _score(
    lm: LanguageModel, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> list[Tensor]:
    batch = left_padded(lm, [a + b for a, b in zip(prompts, answers, strict=True)])
    longest = max(len(answer) for answer in answers)
    logits_NAV = lm.forward(
        input_ids=batch.ids_NT,
        attention_mask=batch.is_token_NT,
        position_ids=batch.position_NT,
        use_cache=False,
        **only_last_logits(lm, longest + 1),
    ).logits[:, -longest - 1 : -1]
    token_NA1 = batch.ids_NT[:, -longest:].unsqueeze(-1)
    logits_NA = logits_NAV.gather(2, token_NA1).squeeze(-1).float()
    logprobs_NA = (logits_NA - logits_NAV.float().logsumexp(dim=-1)).cpu()
    return [
        row_A[longest - len(a) :].clone() for row_A, a in zip(logprobs_NA, answers, strict=True)
    ]


def _batches(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    batch_tokens: int,
) -> Iterator[list[int]]:
    """Places of rows with an answer, those of like length together."""
    num_tokens = int(lm.model.config.get_text_config().vocab_size)
    length = [len(a) + len(b) for a, b in zip(prompts, answers, strict=True)]
    order = sorted((r for r in range(len(prompts)) if answers[r]), key=lambda r: (-length[r], r))
    rows: list[int] = []
    for row in order:
        num_kept = 1 + max(len(answers[r]) for r in (*rows, row))
        is_full = (len(rows) + 1) * max(length[r] for r in (*rows, row)) > batch_tokens
        if rows and (is_full or (len(rows) + 1) * num_kept * num_tokens > _MAX_LOGITS):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _check_lengths(
    lm: LanguageModel, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> None:
    limit = lm.max_context
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if limit is not None and len(prompt) + len(answer) > limit:
            raise BadSteeringInput(
                f"prompt {row} and its answer have {len(prompt)} and {len(answer)} tokens, more "
                f"than the model's context of {limit}; shorten either"
            )
