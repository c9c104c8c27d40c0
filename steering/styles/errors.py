"""What is wrong with data or settings of style embeddings, said to the user."""

from __future__ import annotations

from steering.errors import BadSteeringInput


class BadStyleData(BadSteeringInput):
    """The rule, the value and the way out, in one message."""
