"""Style embeddings: texts or attribute vectors into a space in which groups of authors separate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steering.styles.model import StyleModel


def load(folder: str | Path) -> StyleModel:
    """A finished style embedding from its artefact's folder. Raises BadStyleData."""
    from steering.styles.model import load as load_model

    return load_model(Path(folder))
