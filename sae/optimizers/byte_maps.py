"""Numbers as a byte each: the dynamic data type, relative to the largest of their block.

Dettmers et al. 2022 (arXiv 2110.02861), section 2.1 (block-wise quantization), 2.2 (dynamic
quantization) and the appendix on the dynamic tree data type: seven decades down from one, and the
larger the decade, the more steps it is divided into. What is written is the nearest of 256 values,
times the block's largest magnitude, which is kept as a float32.

Two things are our own. Values between two others go to the nearer one, and at the same distance
to the one nearer to zero, so that every implementation comes to the same byte. And in the unsigned
map nothing but zero becomes zero: a mean square that did would divide its mean by epsilon alone.

Shape suffixes: R = rows, C = columns, S = blocks of a row, N = numbers of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sae.architectures.base import MOMENT_BLOCK

NUM_DECADES = 7
SIGNED_ZERO = 127
"""The byte of zero where values have signs; below it are the negative ones."""
GUESS_BITS = 16
"""Low bits of a float32 that a first guess of its byte leaves out."""
GUESS_FIRST = (127 - 24) << 7
"""High bits of 2^-24, below every value but zero."""
GUESS_SIZE = (24 << 7) + 1
"""As far as one."""


@dataclass(frozen=True)
class ByteMap:
    """What the 256 bytes stand for, and how the nearest is found; tables of one device."""

    signed: bool
    value_256: Tensor
    """By byte, rising: from -0.993 to 1, or from 0 to 1."""
    magnitude: Tensor
    """What is not negative among the values, rising."""
    bound: Tensor
    """Largest number that goes to each magnitude rather than to the next; the last is infinite."""
    guess: Tensor
    """By a float32's high bits, the place of the smallest number that has them, int32.

    What else has them goes there or to the next one: one comparison tells.
    """

    def bytes_of(self, x: Tensor) -> Tensor:
        """The nearest values' bytes, uint8, of numbers between -1 (or 0) and 1, of any shape."""
        place = torch.bucketize(x.abs(), self.bound[:-1], out_int32=True)
        if self.signed:
            below = (SIGNED_ZERO - place).clamp_(min=0)
            place = torch.where(x < 0, below, place.add_(SIGNED_ZERO))
        return place.to(torch.uint8)


@cache
def byte_map(signed: bool, device: torch.device) -> ByteMap:
    """The map for the mean gradient (signed) or for the mean square; made once a device."""
    magnitude = torch.tensor(_magnitudes(signed), dtype=torch.float32)
    double = magnitude.double()
    bound = ((double[:-1] + double[1:]) / 2).float()
    if not signed:
        bound[0] = 0.0
    high = torch.arange(GUESS_FIRST, GUESS_FIRST + GUESS_SIZE, dtype=torch.int32)
    guess = torch.bucketize((high << GUESS_BITS).view(torch.float32), bound, out_int32=True)
    guess[0] = 0  # zero has lower bits than any that are listed
    value_256 = torch.cat([-magnitude[1:-1].flip(0), magnitude]) if signed else magnitude
    tables = (value_256, magnitude, torch.cat([bound, torch.tensor([torch.inf])]))
    return ByteMap(signed, *(table.to(device) for table in (*tables, guess)))


def _magnitudes(signed: bool) -> list[float]:
    """Zero, the middles of the steps that each decade is divided into, and one.

    Unsigned, each decade has twice the steps: there is no sign to keep.
    """
    found = [0.0]
    for decade in range(NUM_DECADES):
        num_steps = 2**decade if signed else 2 ** (decade + 1)
        top = 10.0 ** (decade - NUM_DECADES + 1)
        width = 0.9 / num_steps
        found += [top * (0.1 + width * (step + 0.5)) for step in range(num_steps)]
    return [*found, 1.0]


@dataclass(frozen=True)
class CodedMoments:
    """Both moments of a parameter, a row after the other; a block does not go on in the next row.

    Rows are latents, also where the parameter's latents are columns: those of one latent are of
    one size, while a latent that fires a thousand times as often has gradients of another.
    """

    mean_RC: Tensor
    """Bytes of the signed map."""
    mean_scale_RS: Tensor
    """Largest magnitude of each block, float32."""
    square_RC: Tensor
    """Bytes of the unsigned map."""
    square_scale_RS: Tensor

    @classmethod
    def zero(cls, num_rows: int, num_columns: int, device: torch.device) -> CodedMoments:
        """Moments before the first step."""
        shape, blocks = (num_rows, num_columns), (num_rows, num_blocks(num_columns))
        return cls(
            torch.full(shape, SIGNED_ZERO, dtype=torch.uint8, device=device),
            torch.zeros(blocks, dtype=torch.float32, device=device),
            torch.zeros(shape, dtype=torch.uint8, device=device),
            torch.zeros(blocks, dtype=torch.float32, device=device),
        )

    def numbers(self) -> tuple[Tensor, Tensor]:
        """Mean gradient and mean square, float32, [R, C]."""
        mean_RC = decoded(self.mean_RC, self.mean_scale_RS, signed=True)
        return mean_RC, decoded(self.square_RC, self.square_scale_RS, signed=False)


def num_blocks(num_columns: int) -> int:
    """Blocks of a row; the last may be shorter."""
    return -(-num_columns // MOMENT_BLOCK)


def decoded(byte_RC: Tensor, scale_RS: Tensor, *, signed: bool) -> Tensor:
    """The numbers that bytes stand for, float32, [R, C]."""
    value_256 = byte_map(signed, byte_RC.device).value_256
    value_RC = value_256.index_select(0, byte_RC.flatten().int()).view(byte_RC.shape)
    return value_RC.mul_(_spread(scale_RS, byte_RC.shape[1]))


def encoded(x_RC: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Bytes [R, C] and scales [R, S] of float32 numbers; a NaN makes its whole block NaN."""
    padding = num_blocks(x_RC.shape[1]) * MOMENT_BLOCK - x_RC.shape[1]
    padded_RC = torch.nn.functional.pad(x_RC, (0, padding)) if padding else x_RC
    scale_RS = padded_RC.view(len(x_RC), -1, MOMENT_BLOCK).abs().amax(dim=2)
    divisor_RC = _spread(scale_RS.masked_fill(scale_RS == 0, 1), x_RC.shape[1])
    return byte_map(signed, x_RC.device).bytes_of(x_RC / divisor_RC), scale_RS


def _spread(scale_RS: Tensor, num_columns: int) -> Tensor:
    """Each number's scale, [R, C]."""
    spread_RSN = scale_RS.unsqueeze(2).expand(*scale_RS.shape, MOMENT_BLOCK)
    return spread_RSN.reshape(len(scale_RS), -1)[:, :num_columns]
