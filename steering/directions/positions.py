"""Which of a text's tokens a direction is read from. A torch module; see `reading.py` for shapes.

Counted are the text's own tokens: neither BOS, whose activations are of another kind, nor padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steering.directions.contrast_spec import ReadPosition
from steering.errors import BadSteeringInput
from steering.reading import pool_tokens

__all__ = ["read_at"]


def read_at(acts_NTD: Tensor, is_text_NT: Tensor, position: ReadPosition) -> Tensor:
    """One float32 vector a text, [N, D].

    Args:
        position: `last`, `first`, `mean`, `max`, or an index into the text's tokens; negative ones
            count from the end, so -1 is `last` and -2 the token before it.

    Raises:
        BadSteeringInput: a text has too few tokens for the index.
    """
    if isinstance(position, str):
        return pool_tokens(acts_NTD.float(), is_text_NT, position)
    length_N = is_text_NT.sum(dim=1)
    wanted_N = length_N + position if position < 0 else torch.full_like(length_N, position)
    if bool(((wanted_N < 0) | (wanted_N >= length_N)).any()):
        shortest = int(length_N.min())
        raise BadSteeringInput(
            f"position {position} asks for a token that a text of {shortest} tokens does not have; "
            "leave short texts out, or read `last` or `mean`"
        )
    # The k-th True of each row, wherever the row's text begins.
    rank_NT = is_text_NT.long().cumsum(dim=1) - 1
    place_N = ((rank_NT == wanted_N.unsqueeze(1)) & is_text_NT).long().argmax(dim=1)
    return acts_NTD[torch.arange(len(acts_NTD)), place_N.to(acts_NTD.device)].float()
