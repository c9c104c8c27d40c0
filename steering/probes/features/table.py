"""Features of some data, with what each row stands for.

Shape suffixes: N = texts, S = tokens of all texts, R = rows of a table, L = labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.data import Flags, LabelledTexts
from steering.probes.features.sparse import csr_of
from steering.probes.features.spec import FeatureSpec
from steering.probes.features.store import Arrays

__all__ = ["FeatureTable", "TokenIndex"]

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]


@dataclass(frozen=True)
class TokenIndex:
    """The rows of tables by token: the kept tokens of each text, text after text."""

    offset_N1: Ints
    """Rows of text n are offset_N1[n] to offset_N1[n + 1]."""
    token_S: Ints
    """Token ids."""
    place_S: Ints
    """Where in the text's tokens, from 0; BOS is not counted."""
    char_S2: Ints
    """The characters of the text that the token stands for; (0, 0) where it is not known."""

    def chars_of(self, text: int) -> list[tuple[int, int]]:
        """Start and end of each row of a text."""
        rows = self.char_S2[self.offset_N1[text] : self.offset_N1[text + 1]]
        return [(int(start), int(end)) for start, end in rows]


@dataclass(frozen=True)
class FeatureTable:
    """All features that were asked for, of the same texts, in their order."""

    labelled: LabelledTexts
    arrays_by_spec: Mapping[FeatureSpec, Arrays]
    num_latents: Mapping[str, int]
    """d_sae by the SAE's name."""
    tokens: TokenIndex | None
    """None unless a table has a row a token."""

    def matrix(self, spec: FeatureSpec) -> Any:
        """Activations as a memory map [R, D]; latents as a scipy.sparse.csr_matrix [R, d_sae].

        Both float32; what was stored as float16 is converted, a copy in memory. Raises
        BadSteeringInput for features that were not extracted.
        """
        arrays = self._arrays(spec)
        if spec.sae is not None:
            return csr_of(arrays, self.num_latents[spec.sae])
        rows = arrays["rows"]
        return rows if rows.dtype == np.float32 else rows.astype(np.float32)

    def num_rows(self, spec: FeatureSpec) -> int:
        """Texts, or tokens."""
        return int(self.offsets(spec)[-1])

    def offsets(self, spec: FeatureSpec) -> Ints:
        """[N + 1]: rows of text n are offsets[n] to offsets[n + 1]."""
        if spec.is_by_token:
            return self._token_index.offset_N1
        return np.arange(len(self.labelled) + 1)

    def text_of(self, spec: FeatureSpec) -> Ints:
        """For each row the number of its text."""
        return np.repeat(np.arange(len(self.labelled)), np.diff(self.offsets(spec)))

    def rows_of(self, spec: FeatureSpec, texts: Sequence[int] | Ints) -> Ints:
        """The rows of some texts, text after text."""
        if not spec.is_by_token:
            return np.asarray(texts, dtype=np.int64)
        offset_N1 = self.offsets(spec)
        spans = [np.arange(offset_N1[text], offset_N1[text + 1]) for text in texts]
        return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)

    def items(self, spec: FeatureSpec) -> list[str]:
        """For each row its item."""
        names = self.labelled.items
        return [names[text] for text in self.text_of(spec).tolist()]

    def y(self, spec: FeatureSpec) -> Flags:
        """Labels [R, L]: of texts, or of tokens.

        Tokens get them from spans. Without spans they have their text's: most tokens of a positive
        text may carry nothing, so those labels are noisy.
        """
        return self._token_y if spec.is_by_token else self.labelled.y_NL

    @cached_property
    def _token_y(self) -> Flags:
        index = self._token_index
        if self.labelled.spans is not None and not index.char_S2.any():
            raise BadSteeringInput(
                "this model's tokenizer does not tell which characters a token stands for, so "
                "spans label no token; take a model with a fast tokenizer (tokenizer.json)"
            )
        parts = [
            self.labelled.token_labels(text, index.chars_of(text))
            for text in range(len(self.labelled))
        ]
        return np.concatenate(parts)

    @property
    def _token_index(self) -> TokenIndex:
        if self.tokens is None:
            raise BadSteeringInput("no table by token was extracted; ask for pooling: tokens")
        return self.tokens

    def _arrays(self, spec: FeatureSpec) -> Arrays:
        if spec not in self.arrays_by_spec:
            known = "; ".join(one.label for one in self.arrays_by_spec)
            raise BadSteeringInput(f"{spec.label} was not extracted; there is {known}")
        return self.arrays_by_spec[spec]
