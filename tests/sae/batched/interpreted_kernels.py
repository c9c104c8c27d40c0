"""Run by test_triton_kernels in a process with TRITON_INTERPRET=1: each kernel, and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.batched import kernels as kernels_package
from sae.batched.kernels import (
    make_kernels,
    triton_check,
    triton_coded,
    triton_kernels,
    triton_sums,
    triton_updates,
)
from sae.batched.workspace import Workspace
from tests.sae.batched.triton_cases import (
    KINDS,
    SMALL,
    check_adam,
    check_coded_adam,
    check_narrow_sums,
    check_norm,
    check_sums,
    code_of,
    drawn,
    sums_of,
)
from tests.sae.batched.triton_cases import triton_kernels as small_kernels

CPU = torch.device("cpu")
F32: dict[str, Any] = {"dtype": torch.float32, "device": CPU}


def sums(kind: str, D: int = SMALL.D) -> None:
    check_sums(kind, torch.float32, CPU, replace(SMALL, D=D), 1e-6)


def adam() -> None:
    check_adam(False, (3, 401), CPU)


def adam_transposed() -> None:
    check_adam(True, (35, 70), CPU)


def coded() -> None:
    check_coded_adam((19, 270), CPU, turned=False)


def coded_turned() -> None:
    check_coded_adam((19, 270), CPU, turned=True)


def norm() -> None:
    check_norm(CPU, 60)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_decoder_and_gradients_are_those_of_torch(kind: str) -> None:
    sums(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_operands_in_bfloat16_are_widened_and_nothing_else_is_rounded(kind: str) -> None:
    check_narrow_sums(kind, CPU, SMALL, 1e-6)


def test_float64_keeps_its_precision() -> None:
    check_sums("token", torch.float64, CPU, replace(SMALL, D=5), 1e-14)


def test_adam_is_torchs() -> None:
    adam()


def test_adam_of_a_transposed_gradient_is_torchs() -> None:
    adam_transposed()


def test_adam_on_bytes_is_torchs() -> None:
    coded()


def test_adam_on_bytes_of_a_turned_weight_is_torchs() -> None:
    coded_turned()


def test_the_norm_is_that_of_all_together() -> None:
    norm()


def test_equal_inputs_give_equal_bits_whoever_computed_before() -> None:
    sizes = replace(SMALL, D=5)
    kernels = small_kernels(sizes, torch.float32, CPU)
    first = sums_of(kernels, "token", sizes, F32)
    sums_of(kernels, "signed", sizes, F32)
    assert all(
        torch.equal(value, first[name])
        for name, value in sums_of(kernels, "token", sizes, F32).items()
    )


def test_the_parts_of_a_split_latent_are_really_several() -> None:
    """Else parity would be shown of latents that one program adds up."""
    segments = code_of(small_kernels(SMALL, torch.float32, CPU), "token", SMALL, F32).segments
    assert segments.parts_F[5] == 2
    assert segments.fired_F()[5] == SMALL.B
    assert segments.fired_F()[6] == 0
    assert (segments.latent_P == SMALL.F).any()


@pytest.mark.parametrize("kind", ["token", "batch"])
def test_what_is_not_a_number_is_kept_and_shows_in_the_loss(kind: str) -> None:
    kernels, bias_F = small_kernels(SMALL, torch.float32, CPU), torch.zeros(8)
    pre_BF = drawn(4, 8, **F32)
    pre_BF[2, 3] = torch.nan
    code = (
        kernels.token_code(pre_BF, bias_F, None, 2, signed=False)
        if kind == "token"
        else kernels.batch_code(pre_BF, bias_F, None, 8)
    )
    pull = kernels.decode(code, torch.ones(8, 3), torch.zeros(3), torch.zeros(4, 3), 1.0, (8,))
    assert pull.loss_L.isnan().all()


def test_a_batch_with_few_positive_keys_keeps_only_those() -> None:
    kernels, pre_BF = small_kernels(SMALL, torch.float32, CPU), torch.full((4, 8), -1.0)
    assert kernels.batch_code(pre_BF, torch.zeros(8), None, 6).smallest_key().isposinf()
    pre_BF[3, 5], pre_BF[1, 7] = 0.25, 0.5
    code = kernels.batch_code(pre_BF, torch.zeros(8), None, 6)
    assert code.fired_F().tolist() == [0, 0, 0, 0, 0, 1, 0, 1]
    assert float(code.smallest_key()) == 0.25
    assert code.begin_B1.tolist() == [0, 0, 1, 1, 2]


def test_they_are_there_on_a_cpu_only_under_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert make_kernels(CPU, Workspace(), "triton").name == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="Triton kernels cannot be used here.*CUDA, not for cpu"):
        make_kernels(CPU, Workspace(), "triton")


def test_before_they_are_used_on_a_gpu_they_are_tried_out_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a CPU that is taken for a GPU."""
    for name, size in (("B", 5), ("F", 8), ("K", 2), ("WIDTHS", (5,))):
        monkeypatch.setattr(triton_check, name, size)
    tried: Any = kernels_package._wrong_on
    tried.cache_clear()
    assert tried(CPU) == ""
    tried.cache_clear()
    monkeypatch.setattr(triton_kernels.TritonKernels, "norm", lambda *_: torch.ones(()))
    assert tried(CPU).startswith("norm differs from torch's by")
    tried.cache_clear()
    monkeypatch.setattr(triton_kernels, "decode_kernel", None)
    assert tried(CPU) == "TypeError: 'NoneType' object is not subscriptable"
    tried.cache_clear()


@dataclass(frozen=True)
class Mutation:
    """A line of a kernel, what it becomes, and the check that must notice."""

    module: Any
    line: str
    wrong: str
    check: Callable[[], None]


def _sums(line: str, wrong: str, kind: str = "token", D: int = 5) -> Mutation:
    return Mutation(triton_sums, line, wrong, lambda: sums(kind, D))


def _coded(line: str, wrong: str) -> Mutation:
    return Mutation(triton_coded, line, wrong, coded)


MUTATIONS = {
    "target of the other sign": _sums("total = -sign * ", "total = sign * "),
    "the auxiliary target's sign lost": _sums("total = -sign * ", "total = -1.0 * ", "signed"),
    "bias of the decoder left out": _sums("    if HAS_BIAS:", "    if False:"),
    "levels not nested": _sums("low = high", "low = low"),
    "a level's last latent lost": _sums("(latent < high)", "(latent < high - 1)", "batch"),
    "squares of one part of D": _sums("+ part, squares)", "+ part, squares * (part == 0))", D=35),
    "dots with the first level's pull": _sums("pull_LBD + (level * B + token)", "pull_LBD + token"),
    "dots over the first block of D": _sums("range(0, D, BLOCK", "range(0, BLOCK_D, BLOCK", D=35),
    "dots of all levels at once": _sums("mask=level > 0, other=0)", "mask=level > 9, other=0)"),
    "pull of the wrong level": _sums("row = (level * B + token)", "row = (0 * B + token)"),
    "a part's last entry lost": _sums("live = position < end", "live = position < end - 1"),
    "parts that overlap": _sums("+ part * PART", "+ part * (PART - 1)"),
    "parts not added up": _sums("if num_parts > 1:", "if num_parts > 2:"),
    "the first part alone": _sums("range(num_parts)", "range(1)"),
    "encoder's gradient by the value": _sums("grad_pre[:, None] *", "weight[:, None] *"),
    "bias gradient twice": _sums("bias_R + to, bias)", "bias_R + to, 2 * bias)"),
    "clip ignored": Mutation(
        triton_updates, "other=0.0) * tl.load(clip).to(tl.float32)", "other=0.0)", adam
    ),
    "another epsilon": Mutation(triton_updates, "square)) + eps", "square)) + 2 * eps", adam),
    "second moment not corrected": Mutation(
        triton_updates, "root_correction2 + tl.zeros_like(square))", "1 + tl.zeros_like(square))",
        adam,
    ),
    "first moment not decayed": Mutation(
        triton_updates, "mean += (grad - mean) * rest1", "mean += grad * rest1", adam
    ),
    "gradient not turned": Mutation(
        triton_updates, "grad_FD + latent[:, None] * D + column[None, :]",
        "grad_FD + latent[:, None] + F * column[None, :]", adam_transposed,
    ),
    "clip ignored where turned": Mutation(
        triton_updates, "tl.trans(grad) * tl.load(clip).to(tl.float32)", "tl.trans(grad)",
        adam_transposed,
    ),
    "clip ignored on bytes": _coded("other=0.0) * tl.load(clip).to(tl.float32)", "other=0.0)"),
    "bytes read without their scale": _coded("byte) * scale[:, None]", "byte)"),
    "columns beyond the last counted": _coded("scale[:, None], 0.0)", "scale[:, None], 1.0)"),
    "signs lost": _coded("tl.where(x < 0, tl", "tl.where(x < -1e9, tl"),
    "no comparison after the guess": _coded("(x > tl.load(bound + place))", "(x > 2.0)"),
    "scales of the next block": _coded("scale_at = row * S + tl", "scale_at = row * S + 1 - tl"),
    "mean by the squares' map": _coded("mean_scale_RS, mean_value", "mean_scale_RS, square_value"),
    "a weight that is not turned": Mutation(
        triton_coded, "row[:, None] * param_row + column[None, :] * param_column",
        "row[:, None] * param_column + column[None, :] * param_row", coded_turned,
    ),
    "first block's squares only": Mutation(
        triton_updates, "tl.sum(x * x, axis=0)", "tl.sum(x * x, axis=0) * (program == 0)", norm
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_wrong_kernel_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation = MUTATIONS[name]
    text = Path(mutation.module.__file__).read_text()
    assert mutation.line in text
    path = tmp_path / "wrong.py"
    path.write_text(text.replace(mutation.line, mutation.wrong))
    spec = spec_from_file_location("wrong", path)
    assert spec is not None and spec.loader is not None
    wrong = module_from_spec(spec)
    spec.loader.exec_module(wrong)
    for kernel in [each for each in vars(wrong) if each.endswith("_kernel")]:
        monkeypatch.setattr(triton_kernels, kernel, getattr(wrong, kernel))
    with pytest.raises(AssertionError, match="differs by"):
        mutation.check()
