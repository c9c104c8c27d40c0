"""Which block a residual hook belongs to, for formats that number blocks."""

from __future__ import annotations

import re

from steering.vectors_folder import BadVectors

__all__ = ["entered_block", "left_block"]

_RESIDUAL = re.compile(r"^(?:blocks\.(\d+)\.hook_resid_(pre|post)|resid_(pre|post)\.(\d+))$")


def left_block(hook: str) -> int:
    """The block whose output a hook is; -1 for the embedding. Raises BadVectors."""
    match = _RESIDUAL.match(hook)
    if match is None:
        raise BadVectors(
            f"the vector at {hook!r} cannot be written: other tools add vectors to the residual "
            "stream between blocks; take hooks resid_pre.l or resid_post.l"
        )
    layer = int(match[1] or match[4])
    return layer - 1 if (match[2] or match[3]) == "pre" else layer


def entered_block(hook: str) -> int:
    """The block that a hook's vectors enter. Raises BadVectors."""
    return left_block(hook) + 1
