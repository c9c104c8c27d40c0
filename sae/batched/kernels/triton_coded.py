"""Adam on moments of a byte each as one Triton kernel: decoded, moved and encoded in the chip.

Shape suffixes: R = rows (latents), C = columns (d_in), S = blocks of a row; see
`sae.optimizers.byte_maps`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sae.batched.kernels.triton_updates import updated
from sae.optimizers.byte_maps import GUESS_BITS as _GUESS_BITS
from sae.optimizers.byte_maps import GUESS_FIRST as _GUESS_FIRST
from sae.optimizers.byte_maps import GUESS_SIZE as _GUESS_SIZE
from sae.optimizers.byte_maps import SIGNED_ZERO as _SIGNED_ZERO

GUESS_BITS = tl.constexpr(_GUESS_BITS)
GUESS_FIRST = tl.constexpr(_GUESS_FIRST)
GUESS_LAST = tl.constexpr(_GUESS_SIZE - 1)
SIGNED_ZERO = tl.constexpr(_SIGNED_ZERO)


@triton.jit
def places(x, bound, guess):
    """Places of numbers between zero and one among a map's magnitudes."""
    high = (x.to(tl.int32, bitcast=True) >> GUESS_BITS) - GUESS_FIRST
    place = tl.load(guess + tl.minimum(tl.maximum(high, 0), GUESS_LAST))
    return place + (x > tl.load(bound + place)).to(tl.int32)


@triton.jit
def read_coded(from_RC, scale_RS, value, at, live, scale_at, live_R):
    """The numbers that bytes stand for; where nothing lives, zero."""
    scale = tl.load(scale_RS + scale_at, mask=live_R, other=0.0)
    byte = tl.load(from_RC + at, mask=live, other=SIGNED_ZERO).to(tl.int32)
    return tl.where(live, tl.load(value + byte) * scale[:, None], 0.0)


@triton.jit
def write_coded(x, to_RC, scale_RS, bound, guess, at, live, scale_at, live_R, SIGNED: tl.constexpr):
    """Write numbers as bytes, and the largest magnitude of each row."""
    size = tl.abs(x)
    scale = tl.max(size, axis=1)
    divisor = tl.where(scale > 0, scale, 1.0)[:, None] + tl.zeros_like(x)
    place = places(tl.div_rn(size, divisor), bound, guess)
    if SIGNED:
        place = tl.where(x < 0, tl.maximum(SIGNED_ZERO - place, 0), SIGNED_ZERO + place)
    tl.store(to_RC + at, place.to(tl.uint8), mask=live)
    tl.store(scale_RS + scale_at, scale, mask=live_R)


@triton.jit
def coded_adam_kernel(
    param_RC,
    grad_RC,
    mean_RC,
    mean_scale_RS,
    square_RC,
    square_scale_RS,
    clip,
    mean_value,
    mean_bound,
    mean_guess,
    square_value,
    square_bound,
    square_guess,
    R,
    C,
    S,
    param_row,
    param_column,
    grad_row,
    grad_column,
    beta2,
    rest1,
    rest2,
    root_correction2,
    eps,
    step_size,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """In place, a block of several rows a program; `clip` points to a double.

    Strides are the parameter's and the gradient's: what is turned is read along its own memory,
    since Triton lays each load out by what is contiguous.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    live_R = row < R
    live = live_R[:, None] & (column < C)[None, :]
    at = row[:, None] * C + column[None, :]
    scale_at = row * S + tl.program_id(1)
    param_at = row[:, None] * param_row + column[None, :] * param_column
    grad_at = row[:, None] * grad_row + column[None, :] * grad_column

    mean = read_coded(mean_RC, mean_scale_RS, mean_value, at, live, scale_at, live_R)
    square = read_coded(square_RC, square_scale_RS, square_value, at, live, scale_at, live_R)
    grad = tl.load(grad_RC + grad_at, mask=live, other=0.0) * tl.load(clip).to(tl.float32)
    param = tl.load(param_RC + param_at, mask=live, other=0.0)
    param, mean, square = updated(
        param, grad, mean, square, beta2, rest1, rest2, root_correction2, eps, step_size
    )
    tl.store(param_RC + param_at, param, mask=live)
    write_coded(
        mean, mean_RC, mean_scale_RS, mean_bound, mean_guess, at, live, scale_at, live_R, True
    )  # fmt: skip
    write_coded(
        square, square_RC, square_scale_RS, square_bound, square_guess, at, live, scale_at, live_R,
        False,
    )  # fmt: skip
