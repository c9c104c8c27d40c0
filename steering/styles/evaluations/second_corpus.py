"""Train on one corpus, test on another: whether the groups' centroids hold elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from steering.intervals import interval_of
from steering.styles.errors import BadStyleData
from steering.styles.evaluations.embedded import Array, Embedded, macro_accuracy
from steering.styles.evaluations.outcome import Figure, Outcome

if TYPE_CHECKING:
    from steering.styles.model import StyleModel

NAME = "second_corpus"


def second_corpus(
    model: StyleModel, corpus: Embedded, group_map: Mapping[str, str] | None = None
) -> Outcome:
    """Macro accuracy of the nearest centroid, with the model's own centroids.

    Args:
        corpus: rows that the model never saw.
        group_map: a group of the corpus to the model's group it corresponds to; those that are not
            in it are matched by name.

    Returns:
        `macro_accuracy`, where the groups to choose from are those that the corpus has, and
        `macro_accuracy_all_groups`, where they are all that the model has; resampled are items.

    Raises:
        BadStyleData: the map names a group that is not there.
    """
    import torch

    from steering.styles.centroids import confusion
    from steering.styles.centroids import distances as to_centroids

    asked = dict(group_map or {})
    _check_map(asked, corpus, model)
    number = {group: place for place, group in enumerate(model.groups)}
    meant = {group: asked.get(group, group) for group in sorted(set(corpus.rows.groups))}
    unmatched = [group for group, target in meant.items() if target not in number]
    kept = [row for row, group in enumerate(corpus.rows.groups) if group not in unmatched]
    matched = sorted({number[meant[group]] for group in meant if group not in unmatched})
    if len(matched) < 2:
        return Outcome.skip(
            NAME,
            f"{len(matched)} of its groups are groups of the model ({', '.join(model.groups)}); "
            "two are needed: say which ones correspond with --map THEIRS=OURS",
        )
    some = corpus.take(kept)
    group_N = np.array([number[meant[group]] for group in some.rows.groups])
    distance_NG = to_centroids(
        torch.from_numpy(some.embedding_NE), model.centroid_GE, model.distance
    ).numpy()
    among = np.full(distance_NG.shape[1], np.inf)
    among[matched] = 0.0
    predicted_N = (distance_NG + among).argmin(axis=1)
    right_N, right_all_N = predicted_N == group_N, distance_NG.argmin(axis=1) == group_N
    counts_GG = confusion(
        torch.from_numpy(predicted_N), torch.from_numpy(group_N), len(model.groups)
    )
    figures = [
        _figure("macro_accuracy", right_N, group_N, some, 1 / len(matched)),
        _figure("macro_accuracy_all_groups", right_all_N, group_N, some, 1 / len(model.groups)),
    ]
    shares = {model.groups[g]: float(right_N[group_N == g].mean()) for g in matched}
    names = [model.groups[place] for place in matched]
    return Outcome(
        NAME,
        figures,
        skipped={f"group {group}": "the model has no such group" for group in unmatched},
        details={
            "groups": names,
            "accuracy_by_group": shares,
            "confusion": counts_GG[matched][:, matched].tolist(),
        },
    )


def _figure(name: str, right_N: Array, group_N: Array, some: Embedded, chance: float) -> Figure:
    def statistic(rows: Array) -> float:
        return macro_accuracy(right_N[rows], group_N[rows])

    return Figure(name, interval_of(statistic, some.items), len(some), chance)


def _check_map(asked: Mapping[str, str], corpus: Embedded, model: StyleModel) -> None:
    there, ours = set(corpus.rows.groups), set(model.groups)
    for theirs, own in asked.items():
        if theirs not in there:
            raise BadStyleData(
                f"--map {theirs}={own}: the corpus has no group {theirs!r}; it has "
                f"{', '.join(sorted(there))}"
            )
        if own not in ours:
            raise BadStyleData(
                f"--map {theirs}={own}: the model has no group {own!r}; it has "
                f"{', '.join(model.groups)}"
            )
