"""What can be wrong with a stream's model, text or hooks; each message says the way out."""

from __future__ import annotations

OFFLINE_TEXT = "use `files:` with your own text, or `builtin: python-docs`"
OFFLINE_MODEL = "name a local folder or a .gguf file, or use `builtin: smollm2-135m`"


class StreamError(ValueError):
    """The stream that was asked for cannot be had."""


class BadData(StreamError):
    """Text that is missing, unreadable, malformed or too short."""


class BadModel(StreamError):
    """A language model that cannot be found or loaded."""


class UnknownHook(StreamError):
    """A hook point that the model does not have."""
