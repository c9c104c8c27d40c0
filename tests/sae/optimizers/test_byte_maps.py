"""Numbers as bytes: the paper's map, the nearest value, blocks that leave each other alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sae.architectures.base import MOMENT_BLOCK
from sae.optimizers.byte_maps import (
    GUESS_BITS,
    GUESS_FIRST,
    GUESS_SIZE,
    SIGNED_ZERO,
    CodedMoments,
    byte_map,
    decoded,
    encoded,
)

CPU = torch.device("cpu")
SIGNS = [True, False]


def drawn(num_rows: int, num_columns: int, signed: bool) -> Tensor:
    """Sizes over many decades within a row."""
    generator = torch.Generator().manual_seed(num_rows + num_columns)
    size = 10 ** (-9 * torch.rand(num_rows, num_columns, generator=generator))
    noise = torch.randn(num_rows, num_columns, generator=generator)
    return size * (noise if signed else noise.square())


def value_of_bits(bits: str) -> float:
    """Dynamic tree data type: zeros are the exponent, after the first one comes the fraction."""
    if "1" not in bits:
        return 0.0
    exponent = bits.index("1")
    fraction = bits[exponent + 1 :]
    cells = 2 ** len(fraction)
    return 10.0**-exponent * (0.1 + 0.9 * (int("0" + fraction, 2) + 0.5) / cells)


@pytest.mark.parametrize("signed", SIGNS)
def test_values_are_those_of_the_paper_s_bits(signed: bool) -> None:
    """One stands for the pattern that is left over: minus zero, or the eighth decade."""
    if signed:
        plain = [value_of_bits(f"{n:07b}") for n in range(128)]
        expected = {*plain, *(-value for value in plain), 1.0}
    else:
        # The last bit alone would be a decade more, of a single value.
        expected = {value_of_bits(f"{n:08b}") for n in range(256) if n != 1} | {1.0}
    values = byte_map(signed, CPU).value_256.double().numpy()
    np.testing.assert_allclose(values, sorted(expected), rtol=1e-6)
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("signed", SIGNS)
def test_every_value_comes_back_and_larger_numbers_never_get_smaller_bytes(signed: bool) -> None:
    here = byte_map(signed, CPU)
    assert here.bytes_of(here.value_256).tolist() == list(range(256))
    x = torch.linspace(-1 if signed else 0, 1, 200_001)
    steps = here.bytes_of(x).int().diff()
    assert (steps >= 0).all() and int(steps.sum()) == 255


@pytest.mark.parametrize("signed", SIGNS)
@pytest.mark.parametrize("num_columns", [256, 300, 17])
def test_each_number_goes_to_the_nearest_value_of_its_block(signed: bool, num_columns: int) -> None:
    x_RC = drawn(7, num_columns, signed)
    byte_RC, scale_RS = encoded(x_RC, signed=signed)
    again_RC = decoded(byte_RC, scale_RS, signed=signed)
    value_256 = byte_map(signed, CPU).value_256
    for first in range(0, num_columns, MOMENT_BLOCK):
        block_RN = x_RC[:, first : first + MOMENT_BLOCK]
        most_R1 = block_RN.abs().amax(1, keepdim=True)
        apart_RN = (again_RC[:, first : first + MOMENT_BLOCK] - block_RN).abs() / most_R1
        best_RN = (block_RN[:, :, None] / most_R1[:, :, None] - value_256).abs().amin(2)
        if not signed:  # but for what would become zero
            best_RN[block_RN / most_R1 < value_256[1]] = float(value_256[1])
        assert (apart_RN <= best_RN + 1e-7).all()
        # Half a step of the largest decade: steps there are 0.9 / 64, or half of it without signs.
        assert apart_RN.max() <= 0.9 / (128 if signed else 256) + 1e-7


@pytest.mark.parametrize("signed", SIGNS)
def test_the_first_guess_and_one_comparison_find_what_a_search_finds(signed: bool) -> None:
    """As the C++ and the Triton kernel do it; at every bound, and one bit beside it."""
    here = byte_map(signed, CPU)
    edges = here.bound[:-1].clamp(min=1e-30).view(torch.int32)
    near = torch.cat([edges - 1, edges, edges + 1]).view(torch.float32)
    uniform = torch.linspace(0, 1, 100_001)
    x = torch.cat([near, uniform, 10 ** (-9 * uniform), torch.zeros(1)])
    high = (x.view(torch.int32) >> GUESS_BITS) - GUESS_FIRST
    place = here.guess[high.clamp(0, GUESS_SIZE - 1)]
    place = place + (x > here.bound[place])
    assert torch.equal(place, torch.bucketize(x, here.bound[:-1]))


def test_a_mean_square_never_becomes_zero_but_a_zero_does() -> None:
    """Adam would divide by epsilon alone."""
    x_RC = torch.zeros(2, 300)
    x_RC[0, :3] = torch.tensor([1.0, 1e-12, 0.0])
    again_RC = decoded(*encoded(x_RC, signed=False), signed=False)
    assert again_RC[0, 0] == 1.0
    assert again_RC[0, 1] > 0
    assert int((again_RC != 0).sum()) == 2


def test_what_is_not_a_number_stays_in_its_block() -> None:
    x_RC = drawn(2, 300, True)
    clean_RC = decoded(*encoded(x_RC, signed=True), signed=True)
    x_RC[0, 280] = torch.nan
    again_RC = decoded(*encoded(x_RC, signed=True), signed=True)
    assert again_RC[0, MOMENT_BLOCK:].isnan().all()
    assert torch.equal(again_RC[0, :MOMENT_BLOCK], clean_RC[0, :MOMENT_BLOCK])
    assert torch.equal(again_RC[1], clean_RC[1])


def test_moments_are_zero_before_the_first_step_and_take_two_bytes_a_number() -> None:
    moments = CodedMoments.zero(12, 768, CPU)
    assert all(not number_RC.any() for number_RC in moments.numbers())
    assert int(moments.mean_RC[0, 0]) == SIGNED_ZERO
    num_bytes = sum(each.numel() * each.itemsize for each in vars(moments).values())
    assert num_bytes == 12 * 768 * (2 + 2 * 4 / MOMENT_BLOCK)
