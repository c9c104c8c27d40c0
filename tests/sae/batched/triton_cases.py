"""What the Triton kernels are held to, on a CPU by Triton's interpreter and on CUDA as they are.

Shapes are no multiples of the blocks: 35 columns are three programs, the last one of three columns.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.batched.kernels.base import StepKernels
from sae.batched.kernels.torch_kernels import TorchKernels
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule
from sae.optimizers.byte_maps import CodedMoments


@dataclass(frozen=True)
class Sizes:
    """Of a comparison."""

    B: int = 7
    F: int = 13
    D: int = 35
    k: int = 3
    widths: tuple[int, ...] = (4, 9, 13)
    part: int = 4
    """Small enough that latent 5, which always fires, is added up in parts."""
    rows_at_a_time: int = 3


SMALL = Sizes()
LARGE = Sizes(B=700, F=3001, D=777, k=33, widths=(40, 1001, 3001), part=256, rows_at_a_time=300)
ALIGNED = Sizes(B=512, F=4096, D=768, k=32, widths=(512, 2048, 4096), part=256, rows_at_a_time=256)
"""As in use: what divides by 16 is compiled apart."""
KINDS = ("token", "signed", "batch")


Operands = Callable[[Tensor], Tensor]


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def drawn(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """Equal on every device."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)


def triton_kernels(sizes: Sizes, dtype: torch.dtype, device: torch.device) -> Any:
    from sae.batched.kernels.triton_kernels import TritonKernels

    key_bytes = sizes.rows_at_a_time * sizes.F * dtype.itemsize
    return TritonKernels(device, Workspace(), part=sizes.part, key_bytes=key_bytes)


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Norm of each difference within `tolerance` of the norm."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        apart = float((value.double() - theirs[name].double()).norm())
        size = float(theirs[name].double().norm())
        assert apart <= tolerance * size, f"{name} differs by {apart:.3g} of {size:.3g}"


def code_of(
    kernels: StepKernels,
    kind: str,
    sizes: Sizes,
    like: dict[str, Any],
    operands: Operands = _unchanged,
) -> Any:
    """A code in which latent 5 fires for every token, 6 for none and the rest now and then."""
    B, F = sizes.B, sizes.F
    pre_BF, bias_F = drawn(B, F, **like), drawn(F, **like, seed=1)
    pre_BF[:, 5] += 50
    pre_BF[:, 6] -= 50
    norm_F, pre_BF = drawn(F, **like, seed=2).abs() + 0.1, operands(pre_BF)
    if kind == "batch":
        return kernels.batch_code(pre_BF, bias_F, norm_F, sizes.k * B)
    return kernels.token_code(pre_BF, bias_F, norm_F, sizes.k, signed=kind == "signed")


def sums_of(
    kernels: StepKernels,
    kind: str,
    sizes: Sizes,
    like: dict[str, Any],
    operands: Operands = _unchanged,
) -> dict[str, Any]:
    """Decoder and gradients of a code; as the auxiliary loss has them where values are signed.

    Args:
        operands: makes of W_dec, inputs and pre-activations what the kernels are given.
    """
    B, F, D = sizes.B, sizes.F, sizes.D
    code, main = code_of(kernels, kind, sizes, like, operands), kind != "signed"
    bias_D = drawn(D, **like) if main else None
    widths = sizes.widths if main else (F,)
    target_BD, input_BD = drawn(B, D, **like, seed=4), operands(drawn(B, D, **like, seed=5))
    W_dec_FD, sign = operands(drawn(F, D, **like)), 1.0 if main else -1.0
    pull = kernels.decode(code, W_dec_FD, bias_D, target_BD, sign, widths)
    sums = kernels.accumulate(code, pull, input_BD, 0.3, into="main" if main else "aux")
    found = {"fired": code.fired_F(), "loss": pull.loss_L, "pull": pull.pull_LBD}
    found |= {"dec": sums.dec_FD.clone(), "enc": sums.enc_FD.clone(), "bias": sums.bias_F.clone()}
    if kind == "batch":
        found["smallest key"] = code.smallest_key()
    return found


def check_sums(
    kind: str, dtype: torch.dtype, device: torch.device, sizes: Sizes, tolerance: float
) -> None:
    """Codes, decoder and gradients against torch's dense ones."""
    like = {"dtype": dtype, "device": device}
    ours = sums_of(triton_kernels(sizes, dtype, device), kind, sizes, like)
    assert_close(ours, sums_of(TorchKernels(Workspace()), kind, sizes, like), tolerance)


def check_narrow_sums(kind: str, device: torch.device, sizes: Sizes, tolerance: float) -> None:
    """Operands in bfloat16 against the same numbers in float32: nothing else is rounded."""
    like = {"dtype": torch.float32, "device": device}
    kernels = triton_kernels(sizes, torch.float32, device)
    ours = sums_of(kernels, kind, sizes, like, Tensor.bfloat16)
    assert {value.dtype for value in ours.values()} == {torch.float32}
    right = TorchKernels(Workspace())
    theirs = sums_of(right, kind, sizes, like, lambda tensor: tensor.bfloat16().float())
    assert_close(ours, theirs, tolerance)


def check_adam(transposed: bool, shape: tuple[int, ...], device: torch.device) -> None:
    """Three steps against torch's optimizer, moments too."""
    like: dict[str, Any] = {"dtype": torch.float32, "device": device}
    kernels = triton_kernels(SMALL, torch.float32, device)
    ours = drawn(*shape, **like)
    theirs = torch.nn.Parameter(ours.clone())
    mean, square = torch.zeros_like(ours), torch.zeros_like(ours)
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.95))
    for step in range(1, 4):
        grad = drawn(*shape, **like, seed=step)
        grad[1] *= 1e-8  # where epsilon counts
        theirs.grad = grad * 0.5
        adam.step()
        rule = AdamRule(
            clip=torch.tensor(0.5, dtype=torch.float64, device=device),
            beta1=0.8,
            beta2=0.95,
            eps=1e-8,
            step_size=0.01 / (1 - 0.8**step),
            root_correction2=(1 - 0.95**step) ** 0.5,
        )
        given = grad.T.contiguous() if transposed else grad
        kernels.adam(ours, given, mean, square, rule, transposed=transposed)
    state = adam.state[theirs]
    assert_close(
        {"param": ours, "mean": mean, "square": square},
        {"param": theirs.data, "mean": state["exp_avg"], "square": state["exp_avg_sq"]},
        1e-6,
    )


def check_coded_adam(shape: tuple[int, int], device: torch.device, *, turned: bool) -> None:
    """Three steps against torch's operations: latents of different sizes, one without gradients.

    Args:
        turned: whether the parameter lies a column a latent, and its gradient a row a latent.
    """
    like: dict[str, Any] = {"dtype": torch.float32, "device": device}
    found = []
    for kernels in (triton_kernels(SMALL, torch.float32, device), TorchKernels(Workspace())):
        param_RC, moments = drawn(*shape, **like), CodedMoments.zero(*shape, device)
        if turned:
            param_RC = param_RC.T.contiguous().T
        for step in range(1, 4):
            grad_RC = drawn(*shape, **like, seed=step)
            grad_RC *= torch.logspace(0, -6, shape[0], device=device).unsqueeze(1)
            grad_RC[1] = 0
            rule = AdamRule(
                clip=torch.tensor(0.5, dtype=torch.float64, device=device),
                beta1=0.8,
                beta2=0.95,
                eps=1e-8,
                step_size=0.01 / (1 - 0.8**step),
                root_correction2=(1 - 0.95**step) ** 0.5,
            )
            kernels.coded_adam(param_RC, grad_RC, moments, rule)
        moved = param_RC - drawn(*shape, **like)
        scales = {"mean scale": moments.mean_scale_RS, "square scale": moments.square_scale_RS}
        names = ("mean", "square")
        found.append({"moved": moved, **scales, **dict(zip(names, moments.numbers(), strict=True))})
    # Where the last bit chooses another byte, a number is off by a hundredth of itself.
    assert_close(found[0], found[1], 1e-4)


def check_norm(device: torch.device, rows: int) -> None:
    """Over tensors of one and two dimensions together."""
    like: dict[str, Any] = {"dtype": torch.float32, "device": device}
    tensors = [drawn(rows, 83, **like), drawn(7, **like), drawn(3, 5, **like)]
    expected = sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5
    norm = triton_kernels(SMALL, torch.float32, device).norm(tensors)
    assert norm.dtype == torch.float64 and norm.dim() == 0
    assert_close({"norm": norm}, {"norm": torch.tensor(expected)}, 1e-6)
