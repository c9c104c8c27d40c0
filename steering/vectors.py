"""Steering vectors as an artefact: a direction a hook, the residual norms there, and where from.

A torch module. Shape suffixes: L = rows, one a write hook; D = d_model.

A folder holds `vectors.safetensors` ("vector_LD", "norm_L") and `vectors.json`. A strength is a
fraction of the median residual norm at the hook, so that it means the same in every layer and
model; nothing here hands out raw numbers to be multiplied by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import Tensor

from sae.language_model import LanguageModel
from steering.directions.contrast_spec import ReadPosition
from steering.vectors_folder import BadVectors, read_folder, write_folder

__all__ = [
    "About",
    "BadVectors",
    "ModelIdentity",
    "SteeringVectors",
    "load_vectors",
    "model_identity",
    "save_vectors",
]

KIND = "steering_vectors"


class ModelIdentity(BaseModel):
    """The language model whose activations the vectors live in."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Hub id, or the name of a local folder."""
    revision: str | None = None
    family: str
    """`model_type` of its configuration."""
    d_model: int = Field(gt=0)
    weights_sha256: str | None = None
    """Fingerprint of its files; None where they are not known."""


class About(BaseModel):
    """What vectors were made of, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    formula: str = "given"
    """Id of the formula, never the name of a library: names mean different things in two."""
    maths: str = ""
    """The formula in a line."""
    model: ModelIdentity | None = None
    """None where nothing is known, as after an import."""
    read_hooks: tuple[str, ...] = ()
    """Where each row was read; empty if it was not read from activations."""
    read_position: ReadPosition | None = None
    """Of the tokens of each text: `last`, `first`, `mean`, `max`, or an index."""
    norm_hooks: tuple[str, ...] = ()
    """Where the residual norm of each row was measured."""
    sign_rule: str = ""
    """What makes the direction point this way and not the other."""
    suggested_hook: str | None = None
    suggested_strength: float | None = None
    """As a fraction of the residual norm, chosen on validation data."""
    validation: tuple[dict[str, JsonValue], ...] = ()
    """The curve it was chosen from: an entry a point."""
    parents: dict[str, str] = Field(default_factory=dict)
    """Hashes of what went in: data, SAE, probe, other vectors."""
    catalogue_sha256: str | None = None
    """Of the catalogue of style attributes that it stands on."""
    seeds: tuple[int, ...] = ()
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """Numbers of the method: pairs, tokens, spread between draws, weights of a composition."""


@dataclass(frozen=True, eq=False)
class SteeringVectors:
    """A direction for each of some hooks."""

    vector_LD: Tensor
    """As the formula gives them, not normalised; float32 on the CPU."""
    hooks: tuple[str, ...]
    """Where each row is to be added."""
    norm_L: Tensor
    """Median norm of the residual stream at each hook, over the tokens of the data."""
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        shape, rows = tuple(self.vector_LD.shape), len(self.hooks)
        if len(shape) != 2 or shape[0] != rows or tuple(self.norm_L.shape) != (rows,) or not rows:
            raise BadVectors(
                f"vectors of shape {shape} and norms of shape {tuple(self.norm_L.shape)} do not "
                f"fit {rows} hooks; give [hooks, d_model] and [hooks]"
            )
        if len(set(self.hooks)) != rows:
            raise BadVectors(f"hooks name one twice: {', '.join(self.hooks)}; drop the repeats")
        if not (self.vector_LD.isfinite().all() and self.norm_L.isfinite().all()):
            raise BadVectors("vectors or norms hold NaN or infinite numbers; make them again")

    @property
    def d_model(self) -> int:
        """Width of the vectors."""
        return self.vector_LD.shape[1]

    @property
    def raw_norm_L(self) -> Tensor:
        """Length of each vector as the formula gave it."""
        return self.vector_LD.norm(dim=1)

    def row(self, hook: str) -> int:
        """Place of a write hook. Raises BadVectors with those there are."""
        if hook not in self.hooks:
            raise BadVectors(
                f"there is no vector for hook {hook!r}; there are {', '.join(self.hooks)}"
            )
        return self.hooks.index(hook)

    def unit(self, hook: str) -> Tensor:
        """The direction at a hook with length 1, [D]. Raises BadVectors if it is zero."""
        vector_D = self.vector_LD[self.row(hook)]
        length = vector_D.norm()
        if length == 0:
            raise BadVectors(
                f"the vector at {hook!r} is zero: both sides of its data have the same mean there; "
                "steer at another hook"
            )
        return vector_D / length

    def displacement(self, hook: str, strength: float) -> Tensor:
        """What is to be added at a hook, [D], in the units of the model's activations.

        Args:
            strength: as a fraction of the median residual norm there; negative steers away.

        Raises:
            BadVectors: no such hook, a zero vector, or an unknown residual norm.
        """
        norm = self.norm_L[self.row(hook)]
        if norm <= 0:
            raise BadVectors(
                f"the residual norm at {hook!r} is not known, so a strength means nothing; measure "
                "it with steering.directions.with_norms(lm, vectors, texts)"
            )
        return strength * norm * self.unit(hook)

    def natural_strength(self, hook: str) -> float:
        """The strength that adds the vector exactly as its formula gave it.

        Of formulas that give unit length (pca_pairwise, logistic) it says nothing.
        """
        row = self.row(hook)
        return float(self.raw_norm_L[row] / self.norm_L[row])

    def only(self, *hooks: str) -> Self:
        """The rows of some hooks, in that order."""
        rows = torch.tensor([self.row(hook) for hook in hooks])

        def some(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows.tolist()) if values else ()

        about = self.about.model_copy(
            update={
                "read_hooks": some(self.about.read_hooks),
                "norm_hooks": some(self.about.norm_hooks),
            }
        )
        return replace(
            self,
            vector_LD=self.vector_LD[rows],
            hooks=tuple(hooks),
            norm_L=self.norm_L[rows],
            about=about,
        )

    def with_suggestion(
        self, hook: str, strength: float, validation: Sequence[Mapping[str, JsonValue]]
    ) -> Self:
        """With a hook and strength that a sweep found best, and its curve."""
        self.row(hook)
        update = {
            "suggested_hook": hook,
            "suggested_strength": strength,
            "validation": tuple(dict(point) for point in validation),
        }
        about = About.model_validate({**self.about.model_dump(), **update})
        return replace(self, about=about)

    @property
    def sha256(self) -> str:
        """Of the numbers, the hooks and what they were made of."""
        said = [list(self.hooks), self.about.model_dump(mode="json")]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for numbers in (self.vector_LD, self.norm_L):
            digest.update(numbers.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check_model(self, lm: LanguageModel, *, other_weights: bool = False) -> None:
        """Whether a model can be steered with this.

        Args:
            other_weights: allow a model with other weights, such as the tuned one of a base model.

        Raises:
            BadVectors: another width, or another model.
            UnknownHook: a hook that the model does not have.
        """
        check_fit(self.about.model, self.d_model, self.hooks, lm, other_weights=other_weights)


def check_fit(
    made_of: ModelIdentity | None,
    d_model: int,
    hooks: tuple[str, ...],
    lm: LanguageModel,
    *,
    other_weights: bool = False,
) -> None:
    """Whether vectors made of one model may steer another. Raises BadVectors, UnknownHook."""
    here = model_identity(lm)
    for hook in hooks:
        if (width := lm.d_in(hook)) != d_model:
            raise BadVectors(
                f"the vectors are {d_model} wide, but {here.name} has {width} at {hook!r}; they "
                f"were made of {_called(made_of)}: use that model, or make them anew"
            )
    if made_of is None or other_weights:
        return
    known = made_of.weights_sha256 and here.weights_sha256
    same = (
        made_of.weights_sha256 == here.weights_sha256
        if known
        else (made_of.name, made_of.revision) == (here.name, here.revision)
    )
    if not same:
        raise BadVectors(
            f"the vectors were made of {_called(made_of)}, and this is {_called(here)}; use that "
            "model, make them anew, or allow it if the transfer is meant (other_model: true in a "
            "sweep, --other-model of `saeq steer`, other_weights=True in Python)"
        )


def model_identity(lm: LanguageModel) -> ModelIdentity:
    """What to remember of a model."""
    folder = Path(lm.files.name)
    return ModelIdentity(
        name=folder.name if folder.is_dir() else lm.files.name,
        revision=lm.files.revision,
        family=lm.family,
        d_model=int(lm.model.config.get_text_config().hidden_size),
        weights_sha256=lm.files.weights_sha256(),
    )


def save_vectors(folder: Path, vectors: SteeringVectors) -> None:
    """Write the artefact into a folder, which is made if it is not there."""
    said: dict[str, Any] = {
        "hooks": list(vectors.hooks),
        "d_model": vectors.d_model,
        "raw_norms": vectors.raw_norm_L.tolist(),
        "residual_norms": vectors.norm_L.tolist(),
        "about": vectors.about.model_dump(mode="json"),
    }
    numbers = {"vector_LD": vectors.vector_LD, "norm_L": vectors.norm_L}
    write_folder(folder, KIND, numbers, said)


def load_vectors(folder: Path) -> SteeringVectors:
    """Read the artefact. Raises BadVectors with what is wrong with the folder."""
    numbers, said = read_folder(folder, KIND, ("vector_LD", "norm_L"))
    return SteeringVectors(
        vector_LD=numbers["vector_LD"].float(),
        hooks=tuple(said.get("hooks", ())),
        norm_L=numbers["norm_L"].float(),
        about=parse_about(folder, said),
    )


def parse_about(folder: Path, said: Mapping[str, Any]) -> About:
    """The `about` of a folder's JSON. Raises BadVectors."""
    try:
        return About.model_validate(said.get("about"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadVectors(
            f"{folder}: its JSON does not say what the vectors are: {faults}"
        ) from error


def _called(model: ModelIdentity | None) -> str:
    if model is None:
        return "an unknown model"
    revision = f" at {model.revision}" if model.revision else ""
    weights = f", weights {model.weights_sha256[:12]}" if model.weights_sha256 else ""
    return f"{model.name}{revision} ({model.family}, width {model.d_model}{weights})"
