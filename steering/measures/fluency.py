"""Fluency of generated answers: what an unsteered model makes of them, and how they repeat.

Perplexity is of the answer's tokens alone, given the plain prompt, under the unsteered model: the
same for every way of steering, so that the numbers may be compared (AxBench scores prompt and
answer for some methods and the answer for others). A loop has a low perplexity, so it is never
reported without the n-grams. Imports torch when it computes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from steering.errors import BadSteeringInput

if TYPE_CHECKING:
    from sae.language_model import LanguageModel
    from steering.generation.spec import GenerationSpec

__all__ = ["Answer", "Fluency", "FluencyMean", "fluency"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@runtime_checkable
class Answer(Protocol):
    """A generated answer, such as `steering.generation.Generated`."""

    @property
    def text(self) -> str: ...

    @property
    def tokens(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class FluencyMean:
    """Fluency of a set of answers as numbers for a table."""

    perplexity: float
    """exp of the mean log-perplexity of the answers that have tokens; nan if none has."""
    distinct_1: float
    distinct_2: float
    repeated_3grams: float
    zlib_ratio: float
    num_tokens: float
    """Mean length."""
    empty: float
    """Share of answers without a token."""


@dataclass(frozen=True)
class Fluency:
    """Fluency of each answer, [N], float64. n-grams are of the model's tokens."""

    log_perplexity_N: Array
    """Mean negative log-likelihood of a token, in nats; nan for an answer without tokens."""
    num_tokens_N: Array
    distinct_1_N: Array
    """Different tokens over all tokens (Li et al. 2016); 0 for an empty answer."""
    distinct_2_N: Array
    """Different pairs of neighbours over all such pairs."""
    repeated_3grams_N: Array
    """Share of token triples that came before in the same answer: near 1 for a loop."""
    zlib_ratio_N: Array
    """Bytes after compression over bytes before: small for what repeats itself."""

    def __len__(self) -> int:
        return len(self.num_tokens_N)

    def take(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Fluency:
        """Some rows, repeats allowed."""
        at = np.asarray(rows, dtype=np.int64)
        return Fluency(**{name: values[at] for name, values in self.__dict__.items()})

    def mean(self) -> FluencyMean:
        """Means over the answers; the perplexity's in logarithms."""
        has_tokens_N = self.num_tokens_N > 0
        logs = self.log_perplexity_N[has_tokens_N]
        return FluencyMean(
            perplexity=float(np.exp(logs.mean())) if len(logs) else float("nan"),
            distinct_1=_mean(self.distinct_1_N),
            distinct_2=_mean(self.distinct_2_N),
            repeated_3grams=_mean(self.repeated_3grams_N),
            zlib_ratio=_mean(self.zlib_ratio_N),
            num_tokens=_mean(self.num_tokens_N),
            empty=1.0 - _mean(has_tokens_N.astype(np.float64)),
        )


def fluency(
    lm: LanguageModel,
    prompts: Sequence[str],
    answers: Sequence[str | Answer],
    *,
    chat: bool = True,
    system: str | None = None,
    batch_tokens: int = 4096,
) -> Fluency:
    """Measure answers, each against its prompt.

    Args:
        lm: unsteered: call it outside of `steered`.
        prompts: the plain ones, for prompt-steered answers too, or methods are not comparable.
        answers: what was generated, whose tokens are taken as they are; or texts to tokenize.
        chat: whether prompts go through the model's chat template, as in generation.
        system: system message, as in generation.
        batch_tokens: most tokens of a pass, padding included; a longer row is alone.

    Raises:
        BadSteeringInput: prompts and answers are not pairs, a prompt is empty or too long, or the
            model has no chat template.
    """
    if len(prompts) != len(answers):
        raise BadSteeringInput(
            f"answers and prompts must be pairs; got {len(answers)} answers to {len(prompts)} "
            "prompts; repeat a prompt for each of its answers"
        )
    from steering.generation.spec import GenerationSpec

    skip = set(lm.special_token_ids)
    texts = [answer if isinstance(answer, str) else answer.text for answer in answers]
    answer_ids = [
        [int(token) for token in _answer_ids(lm, answer) if token not in skip] for answer in answers
    ]
    spec = GenerationSpec(chat=chat, system=system)
    return Fluency(
        _log_perplexity(lm, prompts, answer_ids, spec, batch_tokens),
        np.array([len(ids) for ids in answer_ids], dtype=np.float64),
        np.array([_distinct(ids, 1) for ids in answer_ids], dtype=np.float64),
        np.array([_distinct(ids, 2) for ids in answer_ids], dtype=np.float64),
        np.array([_repeated(ids, 3) for ids in answer_ids], dtype=np.float64),
        np.array([_zlib_ratio(text) for text in texts], dtype=np.float64),
    )


def _answer_ids(lm: LanguageModel, answer: str | Answer) -> Sequence[int]:
    if not isinstance(answer, str):
        return answer.tokens
    ids: Sequence[int] = lm.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return ids


def _log_perplexity(
    lm: LanguageModel,
    prompts: Sequence[str],
    answer_ids: Sequence[Sequence[int]],
    spec: GenerationSpec,
    batch_tokens: int,
) -> Array:
    from steering.generation import answer_logprobs

    found = answer_logprobs(lm, prompts, answer_ids, spec, batch_tokens=batch_tokens)
    return np.array([-float(p_A.mean()) if len(p_A) else np.nan for p_A in found])


def _ngrams(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]


def _distinct(ids: Sequence[int], n: int) -> float:
    """1 for an answer too short to hold a repeat."""
    grams = _ngrams(ids, n)
    if grams:
        return len(set(grams)) / len(grams)
    return 1.0 if ids else 0.0


def _repeated(ids: Sequence[int], n: int) -> float:
    grams = _ngrams(ids, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _zlib_ratio(text: str) -> float:
    raw = text.encode("utf-8", "surrogatepass")
    return len(zlib.compress(raw, 9)) / len(raw) if raw else 0.0


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
