"""The three metrics of the table, on embeddings alone. numpy.

Shape suffixes: N = cells (an answer of a condition beside its "before"), E = width of the
embedding, G = groups. Formulas: "before" is y0, "after" y_c, t the target, e_g a group's place,
g(y) = argmin_g distance(E(y), e_g).

An answer without text has no embedding: its row is nan, its group NO_GROUP. It counts as changed
(or as lost, if the one before was right), never as gained, and it has no direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from steering.errors import BadSteeringInput

__all__ = [
    "NO_GROUP",
    "READINGS",
    "Cells",
    "Directions",
    "Distance",
    "GroupSpace",
    "Reading",
    "changed",
    "directions",
    "gained",
    "lost",
]

Array = np.ndarray[Any, Any]
Distance = Literal["euclidean", "cosine"]
Reading = Literal["literal", "centred", "towards"]
READINGS: tuple[Reading, ...] = get_args(Reading)
"""What a shift is compared with: e_t, e_t - mean of all e_g, or e_t - E(y0)."""

NO_GROUP = -1
EPSILON = 1e-6
"""Shifts up to this length, in units of the median distance between groups, have no direction."""


@dataclass(frozen=True)
class GroupSpace:
    """Where the groups are, and by which distance an answer belongs to one."""

    point_GE: Array
    distance: Distance

    def __post_init__(self) -> None:
        if self.point_GE.ndim != 2 or len(self.point_GE) < 3:
            raise BadSteeringInput(
                f"the table needs at least three groups; got {len(self.point_GE)}. With two, every "
                "change is a change to the other one"
            )
        if not np.isfinite(self.point_GE).all():
            raise BadSteeringInput("a group's place in the embedding is NaN or infinite")

    @property
    def num_groups(self) -> int:
        """How many groups an answer may belong to."""
        return len(self.point_GE)

    @property
    def scale(self) -> float:
        """Median Euclidean distance between two groups."""
        apart_GG = np.linalg.norm(self.point_GE[:, None] - self.point_GE[None], axis=-1)
        return float(np.median(apart_GG[np.triu_indices(self.num_groups, 1)]))

    def nearest(self, embedding_NE: Array) -> Array:
        """The group of each answer, int64 [N]; the lower number among equals; NO_GROUP for nan."""
        found_N = np.full(len(embedding_NE), NO_GROUP, dtype=np.int64)
        is_there_N = np.isfinite(embedding_NE).all(axis=1)
        if is_there_N.any():
            own_NE = embedding_NE[is_there_N].astype(np.float64)
            found_N[is_there_N] = self._distances(own_NE).argmin(axis=1)
        return found_N

    def _distances(self, embedding_NE: Array) -> Array:
        point_GE = self.point_GE.astype(np.float64)
        if self.distance == "cosine":
            return 1.0 - _unit(embedding_NE) @ _unit(point_GE).T
        return np.linalg.norm(embedding_NE[:, None] - point_GE[None], axis=-1)


@dataclass(frozen=True)
class Cells:
    """Answers of one condition beside what was answered before. All of one length."""

    before_NE: Array
    after_NE: Array
    target_N: Array
    """Number of the group that is aimed at."""
    prompt_N: Array
    """What resampling draws: the prompt of each cell."""

    def __post_init__(self) -> None:
        lengths = {
            len(one) for one in (self.before_NE, self.after_NE, self.target_N, self.prompt_N)
        }
        if len(lengths) != 1 or self.before_NE.shape != self.after_NE.shape:
            raise BadSteeringInput(
                f"cells need a before, an after, a target and a prompt each; got shapes "
                f"{self.before_NE.shape}, {self.after_NE.shape}, {self.target_N.shape} and "
                f"{self.prompt_N.shape}"
            )

    def __len__(self) -> int:
        return len(self.target_N)


def changed(space: GroupSpace, cells: Cells) -> Array:
    """M1 of each cell: 1[g(y_c) != g(y0)], bool [N]."""
    found: Array = space.nearest(cells.after_NE) != space.nearest(cells.before_NE)
    return found


def gained(space: GroupSpace, cells: Cells) -> Array:
    """M2 of each cell: 1[g(y_c) = t and g(y0) != t], bool [N]."""
    found: Array = (space.nearest(cells.after_NE) == cells.target_N) & (
        space.nearest(cells.before_NE) != cells.target_N
    )
    return found


def lost(space: GroupSpace, cells: Cells) -> Array:
    """What M2 does not see: 1[g(y0) = t and g(y_c) != t], bool [N]."""
    found: Array = (space.nearest(cells.before_NE) == cells.target_N) & (
        space.nearest(cells.after_NE) != cells.target_N
    )
    return found


@dataclass(frozen=True)
class Directions:
    """M3 of each cell; nan where there is no direction."""

    distance_N: Array
    """1 - cos(Delta, u_t), within 0 and 2; 1 for a shift that has nothing to do with the group."""
    hit_N: Array
    """1.0 where u_t is the nearest of all u_g by cosine, else 0.0."""

    @property
    def num_excluded(self) -> int:
        """Cells without a direction: nothing moved, or there is nowhere to move to."""
        return int(np.isnan(self.distance_N).sum())


def directions(
    space: GroupSpace, cells: Cells, reading: Reading, *, epsilon: float = EPSILON
) -> Directions:
    """M3: where to the embedding moved, against where the target group is.

    Delta = E(y_c) - E(y0). Left out are cells with |Delta| <= epsilon * `space.scale`, or whose u_t
    is as short. `literal` compares with e_t and depends on the arbitrary origin of the embedding;
    `centred` with e_t - mean_g e_g; `towards` with e_t - E(y0).
    """
    least = epsilon * space.scale
    point_GE = space.point_GE.astype(np.float64)
    distance_N = np.full(len(cells), np.nan)
    hit_N = np.full(len(cells), np.nan)
    for row in range(len(cells)):
        before_E = cells.before_NE[row].astype(np.float64)
        delta_E = cells.after_NE[row].astype(np.float64) - before_E
        goal_GE = _goals(point_GE, before_E, reading)
        target = int(cells.target_N[row])
        lengths_G = np.linalg.norm(goal_GE, axis=1)
        moved = np.linalg.norm(delta_E)
        if not moved > least or not lengths_G[target] > least:
            continue
        apart_G = np.full(space.num_groups, np.inf)
        far_G = lengths_G > least
        apart_G[far_G] = 1.0 - (goal_GE[far_G] @ delta_E) / (lengths_G[far_G] * moved)
        distance_N[row] = apart_G[target]
        hit_N[row] = float(apart_G.argmin() == target)
    return Directions(distance_N, hit_N)


def _goals(point_GE: Array, before_E: Array, reading: Reading) -> Array:
    if reading == "literal":
        return point_GE
    goals_GE: Array = point_GE - (point_GE.mean(axis=0) if reading == "centred" else before_E)
    return goals_GE


def _unit(one_NE: Array) -> Array:
    length_N1 = np.linalg.norm(one_NE, axis=-1, keepdims=True)
    unit_NE: Array = one_NE / np.where(length_N1 > 0, length_N1, 1.0)
    return unit_NE
