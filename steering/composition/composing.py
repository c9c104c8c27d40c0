"""A steering vector for each group: a weighted sum of attributes' vectors. A torch module.

Shape suffixes: G = groups, A = attributes, L = hooks, D = d_model.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steering.composition.spec import CompositionSpec
from steering.composition.weights import Array, GroupWeights, group_weights
from steering.errors import BadSteeringInput
from steering.vectors import About, SteeringVectors
from steering.vectors_by_attribute import AttributeVectors

__all__ = ["GroupVectors", "group_vectors"]

logger = logging.getLogger(__name__)

NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class GroupVectors:
    """Vectors of all groups, and what to look at before anything is generated with them."""

    by_group: dict[str, SteeringVectors]
    weights: GroupWeights
    cosine_LGG: Tensor
    """Between groups, at each hook."""
    spec: CompositionSpec

    @property
    def hooks(self) -> tuple[str, ...]:
        """Write hooks, the same for all groups."""
        return next(iter(self.by_group.values())).hooks

    @property
    def closest(self) -> tuple[str, str, float, str]:
        """The two groups whose vectors are most alike: their names, cosine, and at which hook."""
        groups = self.weights.groups
        size = len(groups)
        off = self.cosine_LGG.masked_fill(torch.eye(size, dtype=torch.bool), -torch.inf)
        place = int(off.argmax())
        layer, row, column = place // size**2, place // size % size, place % size
        return groups[row], groups[column], float(off.flatten()[place]), self.hooks[layer]

    def rows(self) -> list[dict[str, Any]]:
        """A row a group: effective attributes, largest weight, nearest other group, attributes."""
        size = len(self.weights.groups)
        mean_GG = self.cosine_LGG.mean(dim=0).masked_fill(torch.eye(size).bool(), -torch.inf)
        return [
            {
                "group": group,
                "attributes": int((self.weights.weight_GA[place] > 0).sum()),
                "effective": float(self.weights.effective_G[place]),
                "max_weight": float(self.weights.max_G[place]),
                "nearest": self.weights.groups[int(mean_GG[place].argmax())],
                "cosine": float(mean_GG[place].max()),
                "heaviest": "; ".join(self.weights.top(group)),
            }
            for place, group in enumerate(self.weights.groups)
        ]

    def warnings(self) -> list[str]:
        """What speaks against steering with these."""
        return [*self._alike(), *self._single()]

    def _single(self) -> list[str]:
        """Groups of which one attribute is all."""
        weights = self.weights
        of_several_G = (weights.weight_GA > 0).sum(axis=1) > 1
        places = np.flatnonzero((weights.max_G > NEARLY_ALL) & of_several_G)
        if not len(places):
            return []
        named = ", ".join(
            f"{weights.groups[p]} ({weights.top(weights.groups[p], 1)[0]})" for p in places
        )
        return [
            f"one attribute is over {NEARLY_ALL:.0%} of the vector of {named}; if more are to "
            f"count, try a tau above {self.spec.tau:g}"
        ]

    def _alike(self) -> list[str]:
        """The two groups that are most alike, if they are too much so."""
        one, other, cosine, hook = self.closest
        if cosine <= self.spec.similar:
            return []
        ways = [] if self.spec.centre else ["centre: true"]
        ways += [f"a tau below {self.spec.tau:g}"] if self.spec.tau > 0.01 else []
        ways += ["weights: top_k"] if self.spec.weights != "top_k" else []
        return [
            f"the vectors of {one} and {other} are nearly the same at {hook} (cosine {cosine:.4f}, "
            f"over {self.spec.similar:g}; {float(self.weights.effective_G.mean()):.0f} of "
            f"{len(self.weights.ids)} attributes count): steering cannot tell them apart; try "
            f"{', '.join(ways) or 'other attributes'}"
        ]

    def report(self) -> str:
        """The table as text, cosines between groups, and warnings: print it before generating."""
        head = f"{'group':<20} {'attributes':>10} {'effective':>9} {'max weight':>10}"
        lines = [f"{head}  nearest group (cosine)"]
        for row in self.rows():
            name = f"{row['group'][:20]:<20} {row['attributes']:>10} {row['effective']:>9.1f}"
            nearest = f"{row['nearest']} ({row['cosine']:.3f})"
            lines.append(f"{name} {row['max_weight']:>10.4f}  {nearest}")
            lines.append(f"    {row['heaviest']}")
        off = ~torch.eye(len(self.weights.groups), dtype=torch.bool)
        for hook, cosine_GG in zip(self.hooks, self.cosine_LGG, strict=True):
            values = cosine_GG[off]
            lines.append(
                f"{hook}: cosine between groups {float(values.mean()):.3f} on average, "
                f"{float(values.max()):.3f} at most"
            )
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings())])


def group_vectors(
    attributes: AttributeVectors,
    style_GA: Array,
    groups: Sequence[str],
    spec: CompositionSpec | None = None,
    *,
    style_ids: Sequence[str] | None = None,
) -> GroupVectors:
    """Put groups' vectors together; a warning is logged where they are nearly the same.

    Args:
        attributes: with `.only(ids)`, some of a catalogue, such as those that are style.
        style_GA: a style vector for each group, as `group_styles` gives them.
        style_ids: the attribute of each of its columns; the vectors' own order if not given.

    Raises:
        BadSteeringInput: styles that do not fit the attributes or groups.
    """
    spec = spec or CompositionSpec()
    style_GA = _in_order(np.asarray(style_GA, dtype=np.float64), attributes.ids, style_ids)
    weights = group_weights(style_GA, groups, attributes.ids, spec)
    weight_GA = torch.from_numpy(weights.weight_GA).float()
    vector_GLD = torch.einsum("ga,ald->gld", weight_GA, attributes.raw_ALD)
    if spec.centre:
        # The weights of a group sum to 1, so that this centres each attribute.
        vector_GLD = vector_GLD - attributes.mean_LD
    unit_GLD = torch.nn.functional.normalize(vector_GLD, dim=-1)
    cosine_LGG = torch.einsum("gld,hld->lgh", unit_GLD, unit_GLD)
    styles_sha256 = hashlib.sha256(style_GA.tobytes()).hexdigest()
    by_group = {
        group: SteeringVectors(
            vector_GLD[place],
            attributes.hooks,
            attributes.norm_L,
            _about(attributes, weights, place, spec, styles_sha256),
        )
        for place, group in enumerate(weights.groups)
    }
    made = GroupVectors(by_group, weights, cosine_LGG, spec)
    for line in made.warnings():
        logger.warning("%s", line)
    return made


def _about(
    attributes: AttributeVectors,
    weights: GroupWeights,
    place: int,
    spec: CompositionSpec,
    styles_sha256: str,
) -> About:
    weight_A = weights.weight_GA[place]
    recipe = {one: float(weight) for one, weight in zip(weights.ids, weight_A, strict=True)}
    centred = " - mean_a v_a" if spec.centre else ""
    over = f" over its top {spec.top_k}" if spec.weights == "top_k" else ""
    return attributes.about.model_copy(
        update={
            "formula": f"attributes_{spec.weights}",
            "maths": f"V_g = sum_a w_ga v_a{centred}, w_g = softmax(style_g / tau){over}",
            "sign_rule": "towards the attributes that the group has most of",
            "parents": {
                **attributes.about.parents,
                "attribute_vectors": attributes.sha256,
                "group_styles": styles_sha256,
            },
            "details": {
                "group": weights.groups[place],
                "recipe": spec.model_dump(mode="json"),
                "weights": {one: weight for one, weight in recipe.items() if weight > 0},
                "effective_attributes": float(weights.effective_G[place]),
                "max_weight": float(weights.max_G[place]),
            },
        }
    )


def _in_order(style_GA: Array, ids: Sequence[str], style_ids: Sequence[str] | None) -> Array:
    if style_ids is None:
        return style_GA
    missing = [one for one in ids if one not in set(style_ids)]
    if missing or len(style_ids) != style_GA.shape[-1]:
        raise BadSteeringInput(
            f"styles have {style_GA.shape[-1]} columns named by {len(style_ids)} ids, and lack "
            f"{len(missing)} of the attributes ({', '.join(missing[:5])}); score all of them"
        )
    place = {one: column for column, one in enumerate(style_ids)}
    return style_GA[:, [place[one] for one in ids]]
