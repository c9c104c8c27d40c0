"""Whether the Triton kernels compute on a device what torch does; asked before they are used.

What a driver, a compiler and a chip make of a kernel cannot be known elsewhere, and a wrong
gradient would show in nothing but the SAE.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from sae.batched.kernels.base import StepKernels
from sae.batched.kernels.torch_kernels import TorchKernels
from sae.batched.products import NARROW
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule
from sae.optimizers.byte_maps import CodedMoments

B, F, K = 24, 48, 5
WIDTHS = (35, 768)
"""Of D: ragged, and one that programs share out evenly; they are compiled apart."""
TOLERANCE = 1e-2
"""Of a tensor's norm: the other side's products may be in TF32, or round to bfloat16."""


def wrong_on_device(kernels: StepKernels, device: torch.device) -> str:
    """What differs from torch operations; empty if nothing does. Whatever fails is raised."""
    for D, operand in product(WIDTHS, (torch.float32, NARROW)):
        right = dict(_results(TorchKernels(Workspace()), device, D, operand))
        for name, ours in _results(kernels, device, D, operand):
            apart, size = float((ours - right[name]).norm()), float(right[name].norm())
            if not apart <= TOLERANCE * size:
                of = "" if operand == torch.float32 else " of bfloat16 operands"
                return f"{name}{of} differs from torch's by {apart:.3g} of {size:.3g}"
    return ""


def _results(
    kernels: StepKernels, device: torch.device, D: int, operand: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Of every kernel; `operand` is the type of pre-activations, W_dec and inputs."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    pre_BF, bias_F, norm_F = drawn(B, F), drawn(F), drawn(F).abs() + 0.1
    pre_BF[:, 7] += 10
    pre_BF = pre_BF.to(operand)
    W_dec_FD, x_BD, input_BD = drawn(F, D), drawn(B, D), drawn(B, D)
    codes = {
        "token": kernels.token_code(pre_BF, bias_F, norm_F, K, signed=False),
        "batch": kernels.batch_code(pre_BF, bias_F, norm_F, K * B),
    }
    for kind, code in codes.items():
        rows_FD, widths = W_dec_FD.to(operand), (F // 3, F)
        pull = kernels.decode(code, rows_FD, x_BD[0].contiguous(), x_BD, 1.0, widths)
        sums = kernels.accumulate(code, pull, input_BD.to(operand), 0.5, into="main")
        yield f"{kind} code", code.fired_F()
        yield f"loss of a {kind} code", pull.loss_L
        yield f"decoder's gradient of a {kind} code", sums.dec_FD.clone()
        yield f"encoder's gradient of a {kind} code", sums.enc_FD.clone()
        yield f"bias' gradient of a {kind} code", sums.bias_F.clone()
    clip = torch.tensor(0.5, dtype=torch.float64, device=device)
    rule = AdamRule(clip, 0.9, 0.99, 1e-8, 0.1, 0.1)
    for transposed, shape in ((False, (F, D)), (True, (D, F))):
        param, mean, square = drawn(*shape), drawn(*shape), drawn(*shape).square()
        kernels.adam(param, W_dec_FD, mean, square, rule, transposed=transposed)
        yield f"Adam{' turned' if transposed else ''}", torch.stack([param, mean, square])
        moments = CodedMoments.zero(F, D, device)
        param_FD = param.T if transposed else param
        for grad_FD in (W_dec_FD, W_dec_FD.square()):
            kernels.coded_adam(param_FD, grad_FD, moments, rule)
        name = f"8-bit Adam{' turned' if transposed else ''}"
        yield name, torch.stack([param_FD, *moments.numbers()])
    yield "norm", kernels.norm([W_dec_FD, bias_F]).float()
