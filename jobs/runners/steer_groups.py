"""A steering trial's direction towards a group: of its texts, or of attributes by its style.

A torch module. Shape suffix: G = groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from jobs.composed_setup import NEEDS, GroupsSpec, groups_of
from jobs.kind import InputArtefact
from jobs.runners.composed_groups import composed, embedder, score_cache, texts_of_embedding
from jobs.runners.language_models import model_of
from jobs.runners.needed_inputs import folder_of, needed
from jobs.steer_parameters import ComposedParameters, OneVsRestParameters
from jobs.steer_setup import SteerSetup
from sae.language_model import LanguageModel
from steering.composition import GroupVectors
from steering.directions.attributes import attribute_sentences, attribute_vectors
from steering.directions.each_style import one_vs_rest
from steering.errors import BadSteeringInput
from steering.measures import EffectMeter
from steering.measures.effects.embedding_margin import open_embedding_margin
from steering.measures.effects.group_classifier import fit_group_classifier
from steering.styles.catalogue import Catalogue
from steering.styles.rows import Rows, RowsSpec, read_rows, spread_rows
from steering.table.conditions import PromptTexts, condition_named
from steering.table.group_styles import GroupStyles, leading_attributes, styles_of_groups
from steering.vectors import SteeringVectors
from steering.vectors_by_attribute import AttributeVectors

__all__ = [
    "composed_vectors",
    "found_groups",
    "group_instruction",
    "group_meter",
    "one_vs_rest_vectors",
]

SAID_ATTRIBUTES = 3
"""Attributes that a request in words names: those that the group leads the next one by most."""


def composed_vectors(
    lm: LanguageModel, setup: SteerSetup, groups: GroupsSpec, parameters: ComposedParameters
) -> tuple[SteeringVectors, str, Mapping[str, Any]]:
    """The target's vector, its hook, and what is to be known of the composition, as JSON.

    Args:
        groups: as `found_groups` gives them.

    Raises:
        BadSteeringInput: table, groups, scorer or catalogue do not fit, or the composition fails.
        UnknownHook: the model has no such layer.
    """
    hooks, hook = setup.hooks, setup.hook_of(parameters.layer)
    groups_json, model_json = groups.model_dump_json(), setup.model.model_dump_json()
    styles = _styles_of(groups_json, parameters.aggregator)
    attributes = _attributes_of(model_json, str(lm.device), groups_json, hooks).at(hook)
    made = composed(attributes, styles, parameters)
    return made.by_group[groups.target], hook, _said(made, styles, groups)


def one_vs_rest_vectors(
    lm: LanguageModel, setup: SteerSetup, groups: GroupsSpec, parameters: OneVsRestParameters
) -> SteeringVectors:
    """The target's texts against all other groups' together, at all layers.

    Args:
        groups: as `found_groups` gives them.

    Raises:
        BadSteeringInput: table and groups do not fit, or there are no texts.
        UnknownHook: the model has no such layer.
    """
    pooling = parameters.pooling
    made = _one_vs_rest_of(
        setup.model.model_dump_json(),
        str(lm.device),
        groups.model_dump_json(),
        setup.hooks,
        pooling,
    )
    return made[groups.target]


@lru_cache(maxsize=4)
def _one_vs_rest_of(
    model_json: str, device: str, groups_json: str, hooks: tuple[str, ...], pooling: Any
) -> Mapping[str, SteeringVectors]:
    """All layers of a sweep in one pass, for all trials that this process will have."""
    spec = GroupsSpec.model_validate_json(groups_json)
    rows, groups = _rows_of(spec), _groups_of(spec)
    if rows.texts is None:
        raise BadSteeringInput(
            "one_vs_rest reads the groups' texts, and their table has vectors alone; name the "
            "column of the texts (text: NAME), or use method composed"
        )
    some = rows.take(spread_rows(rows.groups, groups, spec.texts_per_group))
    lm = model_of(model_json, device)
    return one_vs_rest(lm, some.texts or (), some.groups, hooks, pooling)


def found_groups(spec: GroupsSpec, inputs: Sequence[InputArtefact]) -> GroupsSpec:
    """The same with the folder of its embedding, and the texts that this was made from.

    Raises:
        BadSteeringInput: the needed embedding is not there, or does not say its texts.
    """
    if spec.embedding is None:
        return spec
    folder, record = Path(spec.embedding), None
    if spec.embedding == NEEDS:
        artefact = needed(inputs, "embedding")
        folder, record = folder_of(artefact), artefact.record
    data = spec.data or texts_of_embedding(folder, record)
    return spec.model_copy(update={"embedding": str(folder), "data": data})


@lru_cache(maxsize=2)
def group_meter(groups_json: str) -> EffectMeter:
    """What tells the target's texts from the other groups', once a process.

    Args:
        groups_json: as `found_groups` gives them.

    Raises:
        BadSteeringInput: groups that are not there, or whose texts cannot be told apart.
        BadStyleData: the embedding or encoder cannot be loaded.
    """
    spec = GroupsSpec.model_validate_json(groups_json)
    groups = _groups_of(spec)
    if spec.embedding is None:
        return fit_group_classifier(
            _rows_of(spec), spec.target, groups, texts_per_group=spec.texts_per_group
        )
    return open_embedding_margin(
        spec.embedding,
        spec.target,
        among=spec.among,
        embedder=lambda model: embedder(model, spec),
        about={
            "scorer": spec.scorer.model_dump(mode="json", exclude_none=True),
            "catalogue_sha256": _catalogue_of(groups_json).sha256,
        },
    )


def group_instruction(groups_json: str) -> str:
    """How one would ask for the group's style in words. Raises BadSteeringInput.

    The same for all trials, whatever aggregator they use: what they are held against must be one.
    """
    spec = GroupsSpec.model_validate_json(groups_json)
    leading = leading_attributes(_styles_of(groups_json, "median"), SAID_ATTRIBUTES)
    sentences = dict(zip(*attribute_sentences(_catalogue_of(groups_json)), strict=True))
    said = [sentences[one] for one in leading[spec.target]]
    return PromptTexts().said(condition_named("C4"), spec.target, said)


def _rows_of(spec: GroupsSpec) -> Rows:
    assert spec.data is not None
    return _rows_of_json(spec.data.model_dump_json())


@lru_cache(maxsize=2)
def _rows_of_json(data_json: str) -> Rows:
    return read_rows(RowsSpec.model_validate_json(data_json))


@lru_cache(maxsize=2)
def _catalogue_of(groups_json: str) -> Catalogue:
    return GroupsSpec.model_validate_json(groups_json).read_catalogue()


def _groups_of(spec: GroupsSpec) -> tuple[str, ...]:
    return groups_of(spec, _rows_of(spec).groups)


@lru_cache(maxsize=4)
def _styles_of(groups_json: str, aggregator: str) -> GroupStyles:
    spec = GroupsSpec.model_validate_json(groups_json)
    return styles_of_groups(
        _rows_of(spec),
        _groups_of(spec),
        _catalogue_of(groups_json),
        spec.scorer,
        aggregator,
        score_cache(),
        texts_per_group=spec.texts_per_group,
    )


@lru_cache(maxsize=1)
def _attributes_of(
    model_json: str, device: str, groups_json: str, hooks: tuple[str, ...]
) -> AttributeVectors:
    """All layers of a sweep in one pass, for all trials that this process will have."""
    return attribute_vectors(model_of(model_json, device), _catalogue_of(groups_json), hooks)


def _said(made: GroupVectors, styles: GroupStyles, spec: GroupsSpec) -> dict[str, Any]:
    size = len(styles.groups)
    cosines = made.cosine_LGG[:, ~torch.eye(size, dtype=torch.bool)]
    return {
        "target": spec.target,
        "groups": made.rows(),
        "mean_cosine": float(cosines.mean()),
        "max_cosine": float(cosines.max()),
        "warnings": made.warnings(),
        "num_texts": dict(styles.num_texts),
        "scorer": spec.scorer.model_dump(mode="json", exclude_none=True),
        "report": made.report(),
    }
