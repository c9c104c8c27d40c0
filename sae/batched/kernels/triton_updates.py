"""Triton kernels over whole tensors, one pass of memory each: Adam, and a sum of squares.

Shape suffixes: F = latents, D = d_in, N = elements, P = programs.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def updated(param, grad, mean, square, beta2, rest1, rest2, root_correction2, eps, step_size):
    """Torch's Adam on a block of float32 numbers: parameter and both moments."""
    mean += (grad - mean) * rest1
    square = square * beta2 + grad * grad * rest2
    denominator = tl.div_rn(tl.sqrt_rn(square), root_correction2 + tl.zeros_like(square)) + eps
    return param - step_size * tl.div_rn(mean, denominator), mean, square


@triton.jit
def adam_kernel(
    param_N,
    grad_N,
    mean_N,
    square_N,
    clip,
    num_elements,
    beta2,
    rest1,
    rest2,
    root_correction2,
    eps,
    step_size,
    BLOCK: tl.constexpr,
):
    """Adam in place; `clip` points to a double."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < num_elements
    grad = tl.load(grad_N + at, mask=live, other=0.0) * tl.load(clip).to(tl.float32)
    param, mean, square = updated(
        tl.load(param_N + at, mask=live, other=0.0),
        grad,
        tl.load(mean_N + at, mask=live, other=0.0),
        tl.load(square_N + at, mask=live, other=0.0),
        beta2,
        rest1,
        rest2,
        root_correction2,
        eps,
        step_size,
    )
    tl.store(param_N + at, param, mask=live)
    tl.store(mean_N + at, mean, mask=live)
    tl.store(square_N + at, square, mask=live)


@triton.jit
def adam_transposed_kernel(
    param_DF,
    grad_FD,
    mean_DF,
    square_DF,
    clip,
    D,
    F,
    beta2,
    rest1,
    rest2,
    root_correction2,
    eps,
    step_size,
    BLOCK_D: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """As `adam_kernel`, of a parameter [D, F] whose gradient is given as [F, D]."""
    latent = tl.program_id(0).to(tl.int64) * BLOCK_F + tl.arange(0, BLOCK_F)
    column = tl.program_id(1).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    live_FD = (latent < F)[:, None] & (column < D)[None, :]
    live_DF = (column < D)[:, None] & (latent < F)[None, :]
    # Read along its own rows and turned in the chip.
    grad = tl.load(grad_FD + latent[:, None] * D + column[None, :], mask=live_FD, other=0.0)
    at = column[:, None] * F + latent[None, :]
    param, mean, square = updated(
        tl.load(param_DF + at, mask=live_DF, other=0.0),
        tl.trans(grad) * tl.load(clip).to(tl.float32),
        tl.load(mean_DF + at, mask=live_DF, other=0.0),
        tl.load(square_DF + at, mask=live_DF, other=0.0),
        beta2,
        rest1,
        rest2,
        root_correction2,
        eps,
        step_size,
    )
    tl.store(param_DF + at, param, mask=live_DF)
    tl.store(mean_DF + at, mean, mask=live_DF)
    tl.store(square_DF + at, square, mask=live_DF)


@triton.jit
def squares_kernel(x_N, partial_P, num_elements, BLOCK: tl.constexpr):
    """Sum of squares of each block."""
    program = tl.program_id(0)
    at = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_N + at, mask=at < num_elements, other=0.0)
    tl.store(partial_P + program, tl.sum(x * x, axis=0))
