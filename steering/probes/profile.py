"""The label profile: how often each label occurs, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.data import LabelledTexts, Task

__all__ = ["LabelCount", "LabelProfile", "profile", "without_rare_labels"]


@dataclass(frozen=True)
class LabelCount:
    """One label."""

    name: str
    positives: int
    """Texts that have it."""
    positive_items: int
    """Items with a text that has it: what is independent."""
    negative_items: int
    """Items with a text that lacks it."""
    share: float
    """Of the texts that have it."""

    @property
    def imbalance(self) -> float:
        """Negatives for each positive; infinite without any."""
        return (1 - self.share) / self.share if self.share else float("inf")

    @property
    def majority_share(self) -> float:
        """Accuracy of always giving the same answer about this label."""
        return max(self.share, 1 - self.share)

    @property
    def scarcest_items(self) -> int:
        """Items on the smaller side."""
        return min(self.positive_items, self.negative_items)


@dataclass(frozen=True)
class LabelProfile:
    """Counts of all labels of some data."""

    task: Task
    num_texts: int
    num_items: int
    labels: tuple[LabelCount, ...]
    labels_per_text: float
    """Mean number of labels a text has."""
    has_spans: bool
    chars_quantiles: tuple[int, int, int]
    """Characters of a text: the median, the 90th percentile, the longest."""

    @property
    def majority_share(self) -> float:
        """Accuracy of always giving the commonest answer; of several labels the mean of it."""
        if self.task == "multiclass":
            return max(label.share for label in self.labels)
        return float(np.mean([label.majority_share for label in self.labels]))

    def rare(self, min_positives: int) -> tuple[LabelCount, ...]:
        """Labels that too few items have, or lack."""
        return tuple(one for one in self.labels if one.scarcest_items < min_positives)

    def table(self) -> str:
        """The profile for people: a head line, and a line a label."""
        widest = max(5, *(len(label.name) for label in self.labels))
        median, most, longest = self.chars_quantiles
        lines = [
            f"{self.num_texts} texts of {self.num_items} items, {self.task}, "
            f"{len(self.labels)} labels, {self.labels_per_text:.2f} a text, majority share "
            f"{self.majority_share:.3f}" + (", with spans" if self.has_spans else ""),
            f"characters a text: median {median}, 90% up to {most}, longest {longest}",
            f"{'label':<{widest}}  {'texts':>8}  {'items':>8}  {'share':>6}  {'neg:pos':>8}",
        ]
        lines += [
            f"{label.name:<{widest}}  {label.positives:>8}  {label.positive_items:>8}  "
            f"{label.share:>6.3f}  {label.imbalance:>8.1f}"
            for label in sorted(self.labels, key=lambda one: -one.positives)
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return asdict(self) | {"majority_share": self.majority_share}


def profile(labelled: LabelledTexts) -> LabelProfile:
    """Count."""
    names, item_N = np.unique(np.asarray(labelled.items, dtype=str), return_inverse=True)
    y_NL, num_labels = labelled.y_NL, len(labelled.label_names)
    counts = [
        LabelCount(
            name=name,
            positives=int(y_NL[:, place].sum()),
            positive_items=len(np.unique(item_N[y_NL[:, place]])),
            negative_items=len(np.unique(item_N[~y_NL[:, place]])),
            share=float(y_NL[:, place].mean()),
        )
        for place, name in enumerate(labelled.label_names)
    ]
    lengths = np.array([len(text) for text in labelled.texts])
    median, most, longest = np.quantile(lengths, [0.5, 0.9, 1.0]).astype(int).tolist()
    return LabelProfile(
        task=labelled.task,
        num_texts=len(labelled),
        num_items=len(names),
        labels=tuple(counts),
        labels_per_text=float(y_NL.sum(axis=1).mean()) if num_labels else 0.0,
        has_spans=labelled.spans is not None,
        chars_quantiles=(median, most, longest),
    )


def without_rare_labels(
    labelled: LabelledTexts, min_positives: int = 10, *, drop: bool = False
) -> LabelledTexts:
    """Refuse labels that too few items have or lack, or leave them out.

    Of a multiclass task the texts of such a class go with it; else only the label goes. Data with
    spans is judged by the items that hold a span, and all of them may (tokens outside of it are
    the negatives).

    Raises:
        BadSteeringInput: there are some and they may not be dropped, or nothing is left; the
            message holds the profile.
    """
    found = profile(labelled)
    rare = found.rare(min_positives)
    if labelled.spans is not None:
        rare = tuple(one for one in rare if one.positive_items < min_positives)
    if not rare:
        return labelled
    listed = ", ".join(f"{one.name} ({one.scarcest_items})" for one in rare)
    if not drop:
        raise BadSteeringInput(
            f"{len(rare)} of {len(found.labels)} labels have, or lack, fewer than min_positives="
            f"{min_positives} items: {listed}; add data, lower min_positives, or leave them out "
            f"with drop_rare_labels: true\n{found.table()}"
        )
    left_out = {one.name: one.positives for one in rare}
    kept = [place for place, name in enumerate(labelled.label_names) if name not in left_out]
    if len(kept) < (2 if labelled.task == "multiclass" else 1):
        raise BadSteeringInput(
            f"too few labels are left when those with fewer than min_positives={min_positives} "
            f"items go ({listed}); add data or lower min_positives\n{found.table()}"
        )
    return _only(labelled, kept, left_out)


def _only(labelled: LabelledTexts, kept: Sequence[int], dropped: dict[str, int]) -> LabelledTexts:
    new_place = {old: new for new, old in enumerate(kept)}
    spans = labelled.spans
    if spans is not None:
        spans = [
            tuple(replace(s, label=new_place[s.label]) for s in some if s.label in new_place)
            for some in spans
        ]
    fewer = replace(
        labelled,
        y_NL=labelled.y_NL[:, kept],
        label_names=tuple(labelled.label_names[place] for place in kept),
        spans=spans,
        dropped={**labelled.dropped, **dropped},
    )
    if labelled.task != "multiclass":
        return fewer
    return fewer.take(np.flatnonzero(fewer.y_NL.any(axis=1)).tolist())
