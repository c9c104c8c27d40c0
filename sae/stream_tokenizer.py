"""The tokenizer of a stream's text: a copy of the model's, for a thread of its own."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sae.token_cache import TokenCache


class StreamTokenizer:
    """Turns texts into token ids, without special tokens.

    Args:
        tokenizer: of the Hugging Face kind; not changed, and not used by this one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._given = tokenizer

    def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Tokenize each text."""
        # verbose=False: pieces are longer than the model's limit on purpose.
        encoded = self._own(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        token_ids: Sequence[Sequence[int]] = encoded["input_ids"]
        return token_ids

    @cached_property
    def sha256(self) -> str:
        """Of all its rules."""
        backend = getattr(self._given, "backend_tokenizer", None)
        text = backend.to_str() if backend is not None else repr(self._given)
        return hashlib.sha256(text.encode()).hexdigest()

    def cache(self, root: Path, stamp: Mapping[str, Any] | None) -> TokenCache | None:
        """Where the token ids of a text are kept; None for one that cannot be told from others.

        Args:
            root: of the token caches of all texts.
            stamp: what `Source.stamp` says of the text.
        """
        if stamp is None:
            return None
        versions = [importlib.metadata.version(name) for name in ("tokenizers", "transformers")]
        return TokenCache(root, {"text": stamp, "tokenizer": self.sha256, "versions": versions})

    @cached_property
    def _own(self) -> Any:
        # A fast tokenizer refuses to be used by two threads that set it up differently.
        return copy.deepcopy(self._given)
