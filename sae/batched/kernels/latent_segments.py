"""A sparse code's entries by latent, and how programs share them out; nothing waits for a device.

Sizes that depend on the data are replaced by what they can be at most, known on the host.

Shape suffixes: F = latents, N = entries of a code, P = programs, M = latents that may be split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatentSegments:
    """Latent f has the positions start[f] .. start[f + 1], tokens rising, in parts of `part`."""

    start_F1: Tensor
    place_N: Tensor
    """Which entry of the code is at a position."""
    token_N: Tensor
    """Its token."""
    part: int
    """Entries that one program adds up."""
    parts_F: Tensor
    """Programs of a latent; one even if it has no entry, to write the zeros."""
    first_F: Tensor
    """The first of them."""
    latent_P: Tensor
    """A program's latent; F for those that have nothing to do."""
    spare_F: Tensor
    """Row of the first part's sums if there are several parts: below all latents' own rows."""
    split_M: Tensor
    """All latents with several parts, and others."""
    num_rows: int
    """Latents' own rows and all that parts may need."""

    @property
    def num_latents(self) -> int:
        return len(self.parts_F)

    def fired_F(self) -> Tensor:
        """Entries of each latent, float32."""
        return (self.start_F1[1:] - self.start_F1[:-1]).float()


def latent_segments(
    index_N: Tensor, token_N: Tensor, num_latents: int, part: int
) -> LatentSegments:
    """Sort entries by latent; `num_latents` is the index of an entry that stands for nothing.

    Args:
        index_N: latents, int32.
        token_N: tokens, rising or at least in a fixed order.
        part: entries that one program may add up at most.
    """
    device, (N,) = index_N.device, index_N.shape
    sorted_N, place_N = torch.sort(index_N, stable=True)
    bounds_F1 = torch.arange(num_latents + 1, dtype=torch.int32, device=device)
    start_F1 = torch.searchsorted(sorted_N, bounds_F1, out_int32=True)
    parts_F = ((start_F1[1:] - start_F1[:-1] + (part - 1)) // part).clamp_(min=1)
    end_F = parts_F.cumsum(0, dtype=torch.int32)
    # A latent's parts beyond its first are full before it: together no more than N // part.
    programs_P = torch.arange(num_latents + N // part, dtype=torch.int32, device=device)
    several_F = torch.where(parts_F > 1, parts_F, 0)
    spare_F = several_F.cumsum(0, dtype=torch.int32) - several_F + num_latents
    return LatentSegments(
        start_F1=start_F1,
        place_N=place_N,
        token_N=token_N[place_N],
        part=part,
        parts_F=parts_F,
        first_F=end_F - parts_F,
        latent_P=torch.searchsorted(end_F, programs_P, right=True, out_int32=True),
        spare_F=spare_F,
        split_M=parts_F.topk(min(num_latents, N // part)).indices,
        num_rows=num_latents + 2 * N // part,
    )
