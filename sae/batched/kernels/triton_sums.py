"""Triton kernels over the few latents that fire: decoder, and gradients of decoder and encoder.

Every sum is taken by one program in an order that its inputs alone decide: no atomics, so equal
inputs give equal bits. Entries whose latent is F stand for nothing. W_dec and the inputs may be
bfloat16: they are widened as they are read.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, L = levels, N = entries of a code,
P = programs, R = rows of gradients: F, and one for each part of a latent that was split.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def decode_kernel(
    begin_B1,
    index_N,
    value_N,
    W_dec_FD,
    bias_D,
    target_BD,
    width_L,
    error_LBD,
    loss_LBP,
    sign,
    num_levels,
    B,
    D,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Errors of each level and their squares; a program is a token and a part of D."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    column = part * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = column < D
    total = -sign * tl.load(target_BD + token * D + column, mask=inside, other=0.0)
    if HAS_BIAS:
        total += tl.load(bias_D + column, mask=inside, other=0.0)
    first = tl.load(begin_B1 + token)
    last = tl.load(begin_B1 + token + 1)
    low = tl.zeros((), dtype=tl.int32)
    for level in range(num_levels):
        high = tl.load(width_L + level)
        for at in range(first, last, BLOCK_N):
            entry = at + tl.arange(0, BLOCK_N)
            latent = tl.load(index_N + entry, mask=entry < last, other=-1)
            here = (latent >= low) & (latent < high)
            value = tl.load(value_N + entry, mask=here, other=0.0)
            row = latent.to(tl.int64)[:, None] * D + column[None, :]
            rows = tl.load(W_dec_FD + row, mask=here[:, None] & inside[None, :], other=0.0)
            total += tl.sum(value[:, None] * rows.to(value.dtype), axis=0)
        tl.store(error_LBD + (level * B + token) * D + column, total, mask=inside)
        squares = tl.sum(total * total, axis=0)
        tl.store(loss_LBP + (level * B + token) * tl.num_programs(1) + part, squares)
        low = high


@triton.jit
def dots_kernel(
    begin_B1,
    index_N,
    W_dec_FD,
    pull_LBD,
    width_L,
    dots_N,
    B,
    D,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Each entry's row of W_dec times the pull of its level; a program is a token and a level."""
    token = tl.program_id(0).to(tl.int64)
    level = tl.program_id(1)
    low = tl.load(width_L + level - 1, mask=level > 0, other=0)
    high = tl.load(width_L + level)
    first = tl.load(begin_B1 + token)
    last = tl.load(begin_B1 + token + 1)
    for at in range(first, last, BLOCK_N):
        entry = at + tl.arange(0, BLOCK_N)
        latent = tl.load(index_N + entry, mask=entry < last, other=-1)
        here = (latent >= low) & (latent < high)
        dot = tl.zeros((BLOCK_N,), dtype=dots_N.dtype.element_ty)
        for start in range(0, D, BLOCK_D):
            column = start + tl.arange(0, BLOCK_D)
            inside = column < D
            pull = tl.load(pull_LBD + (level * B + token) * D + column, mask=inside, other=0.0)
            row = latent.to(tl.int64)[:, None] * D + column[None, :]
            rows = tl.load(W_dec_FD + row, mask=here[:, None] & inside[None, :], other=0.0)
            dot += tl.sum(rows.to(pull.dtype) * pull[None, :], axis=1)
        tl.store(dots_N + entry, dot, mask=here)


@triton.jit
def accumulate_kernel(
    latent_P,
    first_F,
    parts_F,
    spare_F,
    start_F1,
    place_N,
    token_N,
    weight_N,
    grad_pre_N,
    pull_LBD,
    input_BD,
    width_L,
    dec_RD,
    enc_RD,
    bias_R,
    num_levels,
    F,
    B,
    D,
    PART: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Gradients of one latent, or of at most PART of its entries; a program has a part of D."""
    program = tl.program_id(0)
    latent = tl.load(latent_P + program)
    if latent < F:
        column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
        inside = column < D
        part = program - tl.load(first_F + latent)
        start = tl.load(start_F1 + latent) + part * PART
        end = tl.minimum(tl.load(start_F1 + latent + 1), start + PART)
        level = tl.zeros((), dtype=tl.int32)
        for each in range(num_levels):
            level += (latent >= tl.load(width_L + each)).to(tl.int32)
        dec = tl.zeros((BLOCK_D,), dtype=dec_RD.dtype.element_ty)
        enc = tl.zeros((BLOCK_D,), dtype=dec_RD.dtype.element_ty)
        bias = tl.zeros((), dtype=dec_RD.dtype.element_ty)
        for at in range(start, end, BLOCK_N):
            position = at + tl.arange(0, BLOCK_N)
            live = position < end
            entry = tl.load(place_N + position, mask=live, other=0)
            token = tl.load(token_N + position, mask=live, other=0).to(tl.int64)
            weight = tl.load(weight_N + entry, mask=live, other=0.0)
            grad_pre = tl.load(grad_pre_N + entry, mask=live, other=0.0)
            mask = live[:, None] & inside[None, :]
            row = (level * B + token)[:, None] * D + column[None, :]
            pulls = tl.load(pull_LBD + row, mask=mask, other=0.0)
            inputs = tl.load(input_BD + token[:, None] * D + column[None, :], mask=mask, other=0.0)
            dec += tl.sum(weight[:, None] * pulls, axis=0)
            enc += tl.sum(grad_pre[:, None] * inputs.to(grad_pre.dtype), axis=0)
            bias += tl.sum(grad_pre, axis=0)
        to = tl.where(tl.load(parts_F + latent) > 1, tl.load(spare_F + latent) + part, latent)
        to = to.to(tl.int64)
        tl.store(dec_RD + to * D + column, dec, mask=inside)
        tl.store(enc_RD + to * D + column, enc, mask=inside)
        if tl.program_id(1) == 0:
            tl.store(bias_R + to, bias)


@triton.jit
def join_parts_kernel(
    split_M,
    parts_F,
    spare_F,
    dec_RD,
    enc_RD,
    bias_R,
    D,
    BLOCK_D: tl.constexpr,
):
    """Add up the parts of a latent that was split, in order."""
    latent = tl.load(split_M + tl.program_id(0)).to(tl.int64)
    num_parts = tl.load(parts_F + latent)
    if num_parts > 1:
        column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
        inside = column < D
        spare = tl.load(spare_F + latent).to(tl.int64)
        dec = tl.zeros((BLOCK_D,), dtype=dec_RD.dtype.element_ty)
        enc = tl.zeros((BLOCK_D,), dtype=dec_RD.dtype.element_ty)
        bias = tl.zeros((), dtype=dec_RD.dtype.element_ty)
        for part in range(num_parts):
            row = (spare + part) * D + column
            dec += tl.load(dec_RD + row, mask=inside, other=0.0)
            enc += tl.load(enc_RD + row, mask=inside, other=0.0)
            bias += tl.load(bias_R + spare + part)
        tl.store(dec_RD + latent * D + column, dec, mask=inside)
        tl.store(enc_RD + latent * D + column, enc, mask=inside)
        if tl.program_id(1) == 0:
            tl.store(bias_R + latent, bias)
