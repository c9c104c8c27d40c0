"""What is wrong with data or settings of style embeddings, said to the user."""

from __future__ import annotations


class BadStyleData(ValueError):
    """The rule, the value and the way out, in one message."""
