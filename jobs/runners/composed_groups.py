"""Composes groups' vectors for the kinds that steer with them, and says what came out.

Torch is imported when something is composed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.composed_setup import CompositionParameters, StyleSource
from steering.errors import BadSteeringInput
from steering.styles.rows import RowsSpec

if TYPE_CHECKING:
    import numpy as np

    from steering.composition import GroupVectors
    from steering.styles.model import StyleModel
    from steering.table.group_styles import GroupStyles
    from steering.vectors_by_attribute import AttributeVectors

__all__ = ["composed", "embedder", "score_cache", "texts_of_embedding"]

RECORD = "record.json"

logger = logging.getLogger(__name__)


def composed(
    attributes: AttributeVectors, styles: GroupStyles, parameters: CompositionParameters
) -> GroupVectors:
    """Vectors of the groups; their report is said before anything is generated.

    Args:
        attributes: of the whole catalogue; those that are style are picked.

    Raises:
        BadSteeringInput: a group that leads in no attribute (top_k).
    """
    from steering.composition import group_vectors

    made = group_vectors(
        attributes.only(styles.ids),
        styles.style_GA,
        styles.groups,
        parameters.composition(len(styles.ids)),
        style_ids=styles.ids,
    )
    logger.info("groups' vectors as composed:\n%s", made.report())
    return made


def texts_of_embedding(folder: Path, record: Mapping[str, Any] | None = None) -> RowsSpec:
    """What a finished style embedding was made from.

    Args:
        record: of the artefact; not given: as the folder has it.

    Raises:
        BadSteeringInput: it does not say.
    """
    if record is None:
        path = folder / RECORD
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    data = record.get("setup", {}).get("data")
    if data is None:
        raise BadSteeringInput(
            f"the embedding in {folder} does not say which texts it was made from; name them with "
            "data: (as in the sweep that made it)"
        )
    return RowsSpec.model_validate(data)


def embedder(
    model: StyleModel, source: StyleSource
) -> Callable[[Sequence[str]], np.ndarray[Any, Any]]:
    """Texts to embeddings; through attribute scores, where that is what the model embeds."""
    if not model.encoder_spec.features:
        return lambda texts: model.embed_texts(texts).numpy()
    from steering.styles.scorers import score_attributes

    attributes = [one.text for one in source.read_catalogue().attributes]
    return lambda texts: model.embed(
        score_attributes(source.scorer, texts, attributes, score_cache())
    ).numpy()


def score_cache() -> Path:
    """Folder of what scorers computed; may be emptied at any time."""
    from sae.model_files import cache_dir

    folder = cache_dir() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
