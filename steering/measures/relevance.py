"""Whether an answer is still about what was asked: cosines of sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from steering.errors import BadSteeringInput
from steering.measures.sentences import MINILM, Array, cosine, sentence_features
from steering.styles.encoders import EncoderSpec

__all__ = ["relevance"]


def relevance(
    answers: Sequence[str], references: Sequence[str], encoder: EncoderSpec = MINILM
) -> Array:
    """Cosine of each answer to its reference, [N], float64 in [-1, 1]; 0 for an empty answer.

    Args:
        references: the prompts, or the unsteered answers to them.
        encoder: what embeds both.

    Raises:
        BadSteeringInput: answers and references are not pairs.
        BadStyleData: the encoder cannot be loaded.
    """
    if len(answers) != len(references):
        raise BadSteeringInput(
            f"answers and references must be pairs; got {len(answers)} and {len(references)}; "
            "repeat a prompt for each of its answers"
        )
    both = sentence_features([*answers, *references], encoder)
    return cosine(both[: len(answers)], both[len(answers) :])
