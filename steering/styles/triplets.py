"""Which samples are compared: random triplets, and batches of groups for mining. A torch module.

Everything is drawn by a generator that its caller seeds from (seed, step), so that a resumed
training draws what it would have drawn. Shape suffixes: N = samples, T = triplets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pool = Literal["mixed", "disjoint"]
"""`disjoint`: a sample that serves as anchor never serves as positive or negative, so half of the
samples are anchors. `mixed`: every sample may be anything."""


@dataclass(frozen=True)
class Triplets:
    """Indices into the samples."""

    anchor_T: Tensor
    positive_T: Tensor
    negative_T: Tensor


class TripletSampler:
    """Draws triplets whose anchor and positive share a group that the negative is not of.

    Args:
        group_N: the group of each sample.
        pool: see `Pool`.
        seed: which half of each group are anchors where pools are disjoint.

    Raises:
        ValueError: no group has a pair, or there is one group only.
    """

    def __init__(self, group_N: Tensor, pool: Pool = "mixed", seed: int = 0) -> None:
        self.pool = pool
        is_anchor_N = torch.ones(len(group_N), dtype=torch.bool)
        is_other_N = is_anchor_N.clone()
        if pool == "disjoint":
            for group in torch.unique(group_N).tolist():
                own_M = (group_N == group).nonzero().squeeze(1)
                generator = torch.Generator().manual_seed(seed)
                half_M = own_M[torch.randperm(len(own_M), generator=generator)[: len(own_M) // 2]]
                is_anchor_N[own_M], is_anchor_N[half_M] = False, True
                is_other_N[half_M] = False
        # Those that may be positives and negatives, sorted by group: each group is a block.
        others = is_other_N.nonzero().squeeze(1)
        self._sorted = others[group_N[others].argsort(stable=True)]
        sizes = torch.bincount(group_N[self._sorted], minlength=int(group_N.max()) + 1)
        self._size_G, self._start_G = sizes, sizes.cumsum(0) - sizes
        self._place_N = torch.full((len(group_N),), -1)
        self._place_N[self._sorted] = torch.arange(len(self._sorted))
        self._group_N = group_N
        candidates = is_anchor_N.nonzero().squeeze(1)
        is_self_N = self._place_N[candidates] >= 0
        num_positives = sizes[group_N[candidates]] - is_self_N.long()
        num_negatives = len(self._sorted) - sizes[group_N[candidates]]
        usable = (num_positives > 0) & (num_negatives > 0)
        self.anchors = candidates[usable]
        """Samples that may be an anchor: their group has another sample, and there are others."""
        self.num_triplets = int((num_positives * num_negatives)[usable].sum())
        """Different triplets there are."""
        if not len(self.anchors):
            raise ValueError(
                f"no triplet can be drawn from {len(group_N)} samples of "
                f"{len(torch.unique(group_N))} groups; two groups are needed, one with a pair"
            )

    def draw(self, count: int, generator: torch.Generator) -> Triplets:
        """So many triplets, with replacement."""
        pick_T = torch.randint(len(self.anchors), (count,), generator=generator)
        return self.of(self.anchors[pick_T], generator)

    def of(self, anchor_T: Tensor, generator: torch.Generator) -> Triplets:
        """A positive and a negative for each of these anchors (a subset of `anchors`)."""
        group_T = self._group_N[anchor_T]
        start_T, size_T = self._start_G[group_T], self._size_G[group_T]
        own_T = self._place_N[anchor_T]
        is_self_T = own_T >= 0
        step_T = _below(size_T - is_self_T.long(), generator)
        # Skip the anchor's own place in its block.
        step_T = step_T + (is_self_T & (start_T + step_T >= own_T)).long()
        far_T = _below(len(self._sorted) - size_T, generator)
        far_T = far_T + torch.where(far_T >= start_T, size_T, torch.zeros_like(size_T))
        return Triplets(anchor_T, self._sorted[start_T + step_T], self._sorted[far_T])


def _below(bound_T: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform whole numbers, each below its own bound."""
    uniform_T = torch.rand(bound_T.shape, generator=generator, dtype=torch.float64)
    return (uniform_T * bound_T).long().clamp(max=bound_T - 1)


def group_batch(
    group_N: Tensor, num_groups: int, per_group: int, generator: torch.Generator
) -> Tensor:
    """Indices of a batch of some groups with as many samples each ("PK sampling").

    A batch of mostly one group has nothing to mine. Groups and samples are drawn without
    replacement; a smaller group gives all it has.
    """
    groups = torch.unique(group_N)
    chosen = groups[torch.randperm(len(groups), generator=generator)[:num_groups]]
    parts = []
    for group in chosen:
        own_M = (group_N == group).nonzero().squeeze(1)
        parts.append(own_M[torch.randperm(len(own_M), generator=generator)[:per_group]])
    return torch.cat(parts)
