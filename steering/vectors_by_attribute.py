"""A vector for each attribute of a catalogue, in one artefact. A torch module.

Shape suffixes: A = attributes, L = hooks, D = d_model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.language_model import LanguageModel
from steering.vectors import About, SteeringVectors, check_fit, parse_about
from steering.vectors_folder import BadVectors, read_folder, write_folder

__all__ = ["AttributeVectors", "load_attribute_vectors", "save_attribute_vectors"]

KIND = "attribute_vectors"


@dataclass(frozen=True, eq=False)
class AttributeVectors:
    """What the model holds after each attribute's sentence, at each hook."""

    raw_ALD: Tensor
    """Activations as they were read; float32 on the CPU. Their common part is most of them."""
    ids: tuple[str, ...]
    sentences: tuple[str, ...]
    """What was read for each attribute."""
    hooks: tuple[str, ...]
    norm_L: Tensor
    """Median norm of the residual stream at each hook, over the tokens of all sentences."""
    about: About

    def __post_init__(self) -> None:
        shape = tuple(self.raw_ALD.shape)
        if shape[:2] != (len(self.ids), len(self.hooks)) or len(shape) != 3:
            raise BadVectors(
                f"vectors of shape {shape} do not fit {len(self.ids)} attributes and "
                f"{len(self.hooks)} hooks; give [attributes, hooks, d_model]"
            )
        if len(set(self.ids)) != len(self.ids):
            twice = sorted({one for one in self.ids if self.ids.count(one) > 1})
            raise BadVectors(f"attributes come twice: {', '.join(twice)}; drop the repeats")
        if not (self.raw_ALD.isfinite().all() and self.norm_L.isfinite().all()):
            raise BadVectors("vectors or norms hold NaN or infinite numbers; make them again")

    @property
    def d_model(self) -> int:
        """Width of the vectors."""
        return self.raw_ALD.shape[2]

    @cached_property
    def mean_LD(self) -> Tensor:
        """What all attributes have in common."""
        return self.raw_ALD.mean(dim=0)

    def of(self, attribute: str, *, centre: bool = True) -> SteeringVectors:
        """One attribute's vectors: what is different from the mean of all attributes.

        Raises:
            BadVectors: no such attribute.
        """
        if attribute not in self.ids:
            raise BadVectors(f"there is no attribute {attribute!r} among the {len(self.ids)}")
        raw_LD = self.raw_ALD[self.ids.index(attribute)]
        vector_LD = raw_LD - self.mean_LD if centre else raw_LD.clone()
        details = {**self.about.details, "attribute": attribute, "centred": centre}
        parents = {**self.about.parents, "attribute_vectors": self.sha256}
        update = {"details": details, "parents": parents}
        about = self.about.model_copy(update=update)
        return SteeringVectors(vector_LD, self.hooks, self.norm_L, about)

    def only(self, ids: Sequence[str]) -> AttributeVectors:
        """Some attributes, in that order; their mean is what is taken off then."""
        unknown = [one for one in ids if one not in self.ids]
        if unknown:
            raise BadVectors(
                f"there are no vectors of {len(unknown)} attributes: {', '.join(unknown[:5])}"
            )
        rows = [self.ids.index(one) for one in ids]
        return AttributeVectors(
            self.raw_ALD[rows],
            tuple(ids),
            tuple(self.sentences[row] for row in rows),
            self.hooks,
            self.norm_L,
            self.about,
        )

    def at(self, *hooks: str) -> AttributeVectors:
        """The vectors at some hooks, in that order. Raises BadVectors for one that is not there."""
        missing = [hook for hook in hooks if hook not in self.hooks]
        if missing:
            raise BadVectors(
                f"there are no vectors for hooks {', '.join(missing)}; there are "
                f"{', '.join(self.hooks)}"
            )
        places = [self.hooks.index(hook) for hook in hooks]
        update = {
            name: tuple(said[place] for place in places) if said else ()
            for name in ("read_hooks", "norm_hooks")
            for said in [getattr(self.about, name)]
        }
        return AttributeVectors(
            self.raw_ALD[:, places],
            self.ids,
            self.sentences,
            tuple(hooks),
            self.norm_L[places],
            self.about.model_copy(update=update),
        )

    @cached_property
    def sha256(self) -> str:
        """Of the numbers, the attributes and how they were read."""
        said = [self.ids, self.sentences, self.hooks, self.about.model_dump(mode="json")]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        digest.update(self.raw_ALD.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check_model(self, lm: LanguageModel, *, other_weights: bool = False) -> None:
        """Whether a model can be steered with these. Raises BadVectors, UnknownHook."""
        check_fit(self.about.model, self.d_model, self.hooks, lm, other_weights=other_weights)


def save_attribute_vectors(folder: Path, vectors: AttributeVectors) -> None:
    """Write the artefact into a folder, which is made if it is not there."""
    said: dict[str, Any] = {
        "ids": list(vectors.ids),
        "sentences": list(vectors.sentences),
        "hooks": list(vectors.hooks),
        "d_model": vectors.d_model,
        "residual_norms": vectors.norm_L.tolist(),
        "about": vectors.about.model_dump(mode="json"),
    }
    numbers = {"raw_ALD": vectors.raw_ALD, "norm_L": vectors.norm_L}
    write_folder(folder, KIND, numbers, said)


def load_attribute_vectors(folder: Path) -> AttributeVectors:
    """Read the artefact. Raises BadVectors with what is wrong with the folder."""
    numbers, said = read_folder(folder, KIND, ("raw_ALD", "norm_L"))
    return AttributeVectors(
        raw_ALD=numbers["raw_ALD"].float(),
        ids=tuple(said.get("ids", ())),
        sentences=tuple(said.get("sentences", ())),
        hooks=tuple(said.get("hooks", ())),
        norm_L=numbers["norm_L"].float(),
        about=parse_about(folder, said),
    )
