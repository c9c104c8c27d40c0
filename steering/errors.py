"""What is wrong with what a user gave: one message with the rule, the value and the way out."""

from __future__ import annotations

__all__ = ["BadSteeringInput"]


class BadSteeringInput(ValueError):
    """Data, model, vector or setting that cannot be used as it is."""
