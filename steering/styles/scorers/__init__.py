"""How much of each style attribute a text has, from whichever source: one file a source.

Scores lie within 0 and 1. Importing the package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from steering.styles.errors import BadStyleData
from steering.styles.scorers.given import GivenSpec
from steering.styles.scorers.minilm import Minilm
from steering.styles.scorers.regressor import Regressor
from steering.styles.scorers.sfam import SfamSpec
from steering.styles.scorers.source import ScorerSource, Scores

__all__ = ["GivenSpec", "ScorerSpec", "Scores", "SfamSpec", "score_attributes"]


class ScorerSpec(BaseModel):
    """Which scorer; exactly one of its sources."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    given: GivenSpec | None = None
    """Vectors that a table has for each text."""
    sfam: SfamSpec | None = None
    """A sequence classifier of transformers that reads (text, attribute)."""
    regressor: str | None = None
    """Folder of a finished `style_scorer`: one output an attribute."""
    builtin: Literal["minilm"] | None = None
    """(1 + cosine) / 2 of all-MiniLM-L6-v2 embeddings of text and attribute; needs no data."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(type(self).model_fields)}; got "
                f"{' and '.join(given) or 'none'}"
            )
        return self

    @property
    def source(self) -> ScorerSource:
        """What scores."""
        if self.regressor is not None:
            return Regressor(Path(self.regressor))
        return self.given or self.sfam or Minilm()


def score_attributes(
    spec: ScorerSpec, texts: Sequence[str], attributes: Sequence[str], cache: Path
) -> Scores:
    """Scores [texts, attributes], float32 within 0 and 1; what is slow is computed once.

    Args:
        attributes: what a catalogue calls their text ("The author uses passive voice."); sources
            with a catalogue of their own also know them by id.
        cache: a folder that may be emptied at any time.

    Raises:
        BadStyleData: a text is empty, or the source does not know a text or an attribute, does not
            fit what was said of it, or cannot be loaded.
    """
    if not attributes:
        raise BadStyleData("there are no attributes to score; name at least one")
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise BadStyleData(f"text {empty[0]} is empty and has no style; leave it out")
    if not texts:
        return np.zeros((0, len(attributes)), dtype=np.float32)
    return spec.source.score(texts, attributes, cache)
