"""Step kernels for CUDA: Triton where latents are few, torch where everything is dense.

The top-k family's codes are sparse and never leave the device; no operation here makes the host
wait. ReLU-like architectures keep torch's dense products (`entries`): how many latents fire would
have to be asked for. Block sizes follow from shapes alone and are not tuned by trial, which would
change sums, and so last bits, from run to run.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, L = levels, N = entries of a code,
K = kept latents a token, C = tokens in a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from sae.architectures.base import MOMENT_BLOCK
from sae.batched.entries import DenseEntries, dense_entries
from sae.batched.kernels.base import Code, LatentGradients, Pull
from sae.batched.kernels.latent_segments import LatentSegments, latent_segments
from sae.batched.kernels.triton_coded import coded_adam_kernel
from sae.batched.kernels.triton_sums import (
    accumulate_kernel,
    decode_kernel,
    dots_kernel,
    join_parts_kernel,
)
from sae.batched.kernels.triton_updates import (
    adam_kernel,
    adam_transposed_kernel,
    squares_kernel,
)
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule, torch_adam
from sae.optimizers.byte_maps import CodedMoments, byte_map

KEY_BYTES = 256 * 2**20
"""Keys of so many tokens are ranked at a time."""
PART_ENTRIES = 256
"""A latent that fires for more tokens is added up in several parts, side by side."""
ENTRIES_AT_A_TIME = 8
WIDTHS = (1024, 512, 256, 128, 64, 32, 16)
"""Columns that a program may work on."""
SPARE_WIDTH = 1.2
"""Columns a program may be wider than needed, as a factor on d_in."""
ELEMENTS_A_WARP = 512
ADAM_BLOCK = 1024
ADAM_TILE = (32, 32)
"""Rows of D and columns of F that are turned in the chip at a time."""
CODED_ROWS = 16
"""Rows of a program that decodes and encodes moments: where they are columns of the weight, as many
of its numbers lie side by side."""
SQUARES_BLOCK = 4096


@dataclass(frozen=True)
class TritonCode:
    """Token b has the entries begin[b] .. begin[b + 1]; a latent of F stands for nothing."""

    begin_B1: Tensor
    index_N: Tensor
    value_N: Tensor
    key_N: Tensor | None
    segments: LatentSegments

    def fired_F(self) -> Tensor:
        return self.segments.fired_F()

    def smallest_key(self) -> Tensor | None:
        if self.key_N is None or not len(self.key_N):
            return None
        kept_N = self.index_N < self.segments.num_latents
        return torch.where(kept_N, self.key_N, torch.inf).min()


class TritonKernels:
    """See `StepKernels`; in float32 and float64, whose Adam is torch's.

    Args:
        part: entries that one program adds up at most.
        key_bytes: size of the keys that are ranked at a time.
    """

    name = "triton"
    reads_bfloat16 = True

    def __init__(
        self,
        device: torch.device,
        workspace: Workspace,
        *,
        part: int = PART_ENTRIES,
        key_bytes: int = KEY_BYTES,
    ) -> None:
        chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"
        self.identity = f"triton {triton.__version__}, torch {torch.__version__}, {chip}"
        self._device, self._workspace = device, workspace
        self._part, self._key_bytes = part, key_bytes
        self._widths: dict[tuple[int, ...], Tensor] = {}
        self._here: AbstractContextManager[object] = (
            torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        )

    def token_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, k: int, *, signed: bool
    ) -> TritonCode:
        B, F = pre_BF.shape
        k = min(k, F)
        index_BK = torch.empty((B, k), dtype=torch.int64, device=self._device)
        num_rows = max(1, self._key_bytes // (F * bias_F.element_size()))
        key_CF = self._take("key", (min(B, num_rows), F), bias_F.dtype)
        for first in range(0, B, num_rows):
            chunk_CF = pre_BF[first : first + num_rows]
            keys_CF = torch.add(chunk_CF, bias_F, out=key_CF[: len(chunk_CF)])
            if norm_F is not None:
                keys_CF.mul_(norm_F)
            index_BK[first : first + num_rows] = keys_CF.topk(k, dim=1, sorted=False).indices
        value_BK = pre_BF.gather(1, index_BK) + bias_F[index_BK]
        if not signed:
            # Not `> 0`: what is not a number must stay, and show in the loss.
            dropped_BK = value_BK <= 0
            index_BK.masked_fill_(dropped_BK, F)
            value_BK.masked_fill_(dropped_BK, 0)
        token_BK = torch.arange(B, dtype=torch.int32, device=self._device).unsqueeze(1)
        begin_B1 = torch.arange(0, B * k + 1, k, dtype=torch.int32, device=self._device)
        token_N = token_BK.expand(B, k).reshape(-1)
        return self._code(begin_B1, index_BK.view(-1), token_N, value_BK.view(-1), None, F)

    def batch_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, num_kept: int
    ) -> TritonCode:
        B, F = pre_BF.shape
        key_N, place_N = self._largest_keys(pre_BF, bias_F, norm_F, num_kept)
        # By token and latent, what is not above zero behind all others.
        place_N, order_N = place_N.masked_fill_(key_N <= 0, B * F).sort(stable=True)
        key_N = key_N[order_N]
        bounds_B1 = torch.arange(0, B * F + 1, F, dtype=torch.int64, device=self._device)
        begin_B1 = torch.searchsorted(place_N, bounds_B1, out_int32=True)
        here_N = place_N < B * F
        token_N = (place_N // F).clamp_(max=B - 1)
        latent_N = torch.where(here_N, place_N % F, F)
        known_N = latent_N.clamp(max=F - 1)
        value_N = (pre_BF[token_N, known_N] + bias_F[known_N]).masked_fill_(~here_N, 0)
        return self._code(begin_B1, latent_N, token_N.int(), value_N, key_N, F)

    def _largest_keys(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, num_kept: int
    ) -> tuple[Tensor, Tensor]:
        """The batch's largest keys and where they are in [B, F], in any order.

        Each chunk's own largest first: keys of a whole wide batch would be a second [B, F].
        """
        B, F = pre_BF.shape
        num_rows = max(1, self._key_bytes // (F * bias_F.element_size()))
        key_CF = self._take("key", (min(B, num_rows), F), bias_F.dtype)
        key, place = [], []
        for first in range(0, B, num_rows):
            chunk_CF = pre_BF[first : first + num_rows]
            keys_CF = torch.add(chunk_CF, bias_F, out=key_CF[: len(chunk_CF)])
            if norm_F is not None:
                keys_CF.mul_(norm_F)
            found = keys_CF.view(-1).topk(min(num_kept, keys_CF.numel()), sorted=False)
            key.append(found.values)
            place.append(found.indices.add_(first * F))
        if len(key) == 1:
            return key[0], place[0]
        best = torch.cat(key).topk(num_kept, sorted=False)
        return best.values, torch.cat(place)[best.indices]

    def _code(
        self,
        begin_B1: Tensor,
        index_N: Tensor,
        token_N: Tensor,
        value_N: Tensor,
        key_N: Tensor | None,
        F: int,
    ) -> TritonCode:
        index_N = index_N.int()
        segments = latent_segments(index_N, token_N, F, self._part)
        return TritonCode(begin_B1, index_N, value_N, key_N, segments)

    def decode(
        self,
        code: Code,
        W_dec_FD: Tensor,
        bias_D: Tensor | None,
        target_BD: Tensor,
        sign: float,
        widths: Sequence[int],
    ) -> Pull:
        assert isinstance(code, TritonCode)
        assert W_dec_FD.is_contiguous() and target_BD.is_contiguous()
        L, (B, D), dtype = len(widths), target_BD.shape, target_BD.dtype
        block = block_width(D)
        num_parts = triton.cdiv(D, block)
        error_LBD = torch.empty((L, B, D), dtype=dtype, device=self._device)
        loss_LBP = torch.empty((L, B, num_parts), dtype=dtype, device=self._device)
        width_L = self._width_tensor(widths)
        shape = {"BLOCK_N": ENTRIES_AT_A_TIME, "BLOCK_D": block, "num_warps": num_warps(block)}
        self._launch(
            decode_kernel, (B, num_parts),
            code.begin_B1, code.index_N, code.value_N, W_dec_FD,
            target_BD if bias_D is None else bias_D, target_BD, width_L, error_LBD, loss_LBP,
            sign, L, B, D, HAS_BIAS=bias_D is not None, **shape,
        )  # fmt: skip
        pull_LBD = error_LBD if L == 1 else error_LBD.flip(0).cumsum(0).flip(0)
        dots_N = torch.empty_like(code.value_N)
        self._launch(
            dots_kernel, (B, L),
            code.begin_B1, code.index_N, W_dec_FD, pull_LBD, width_L, dots_N, B, D, **shape,
        )  # fmt: skip
        return Pull(pull_LBD, loss_LBP.sum(dim=(1, 2)), tuple(widths), dots_N)

    def accumulate(
        self, code: Code, pull: Pull, input_BD: Tensor, scale: float, *, into: str
    ) -> LatentGradients:
        assert isinstance(code, TritonCode) and input_BD.is_contiguous()
        segments, (B, D), dtype = code.segments, input_BD.shape, pull.pull_LBD.dtype
        F, block = segments.num_latents, block_width(D)
        dec_RD = self._take(f"{into}.grad_dec", (segments.num_rows, D), dtype)
        enc_RD = self._take(f"{into}.grad_enc", (segments.num_rows, D), dtype)
        bias_R = self._take(f"{into}.grad_bias", (segments.num_rows,), dtype)
        num_parts = triton.cdiv(D, block)
        self._launch(
            accumulate_kernel, (len(segments.latent_P), num_parts),
            segments.latent_P, segments.first_F, segments.parts_F, segments.spare_F,
            segments.start_F1, segments.place_N, segments.token_N,
            code.value_N * scale, pull.dots * scale,
            pull.pull_LBD, input_BD, self._width_tensor(pull.widths), dec_RD, enc_RD, bias_R,
            len(pull.widths), F, B, D,
            PART=segments.part, BLOCK_N=ENTRIES_AT_A_TIME, BLOCK_D=block,
            num_warps=num_warps(block),
        )  # fmt: skip
        if len(segments.split_M):
            self._launch(
                join_parts_kernel, (len(segments.split_M), num_parts),
                segments.split_M, segments.parts_F, segments.spare_F, dec_RD, enc_RD, bias_R, D,
                BLOCK_D=block, num_warps=1,
            )  # fmt: skip
        return LatentGradients(dec_RD[:F], enc_RD[:F], bias_R[:F])

    def entries(self, pre_BF: Tensor, bias_F: Tensor, bound_F: Tensor) -> DenseEntries:
        del bias_F, bound_F
        return dense_entries(pre_BF, self._workspace)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([self._squares(tensor) for tensor in tensors]).sum().sqrt()

    def _squares(self, tensor: Tensor) -> Tensor:
        if tensor.dim() == 1 or not tensor.is_contiguous():
            return tensor.double().square().sum()
        num_blocks = triton.cdiv(tensor.numel(), SQUARES_BLOCK)
        partial_P = torch.empty(num_blocks, dtype=tensor.dtype, device=self._device)
        self._launch(
            squares_kernel, (num_blocks,),
            tensor, partial_P, tensor.numel(), BLOCK=SQUARES_BLOCK, num_warps=8,
        )  # fmt: skip
        return partial_P.double().sum()

    def adam(
        self,
        param: Tensor,
        grad: Tensor,
        mean: Tensor,
        square: Tensor,
        rule: AdamRule,
        *,
        transposed: bool,
    ) -> None:
        # Triton takes numbers as float32, which float64 would notice.
        if not all(each.dtype == torch.float32 for each in (param, grad, mean, square)):
            torch_adam(param, grad.T if transposed else grad, mean, square, rule)
            return
        assert all(each.is_contiguous() for each in (param, grad, mean, square))
        numbers = _numbers(rule)
        if transposed:
            (D, F), (high, wide) = param.shape, ADAM_TILE
            self._launch(
                adam_transposed_kernel, (triton.cdiv(F, wide), triton.cdiv(D, high)),
                param, grad, mean, square, rule.clip, D, F, *numbers, BLOCK_D=high, BLOCK_F=wide,
            )  # fmt: skip
            return
        self._launch(
            adam_kernel, (triton.cdiv(param.numel(), ADAM_BLOCK),),
            param, grad, mean, square, rule.clip, param.numel(), *numbers, BLOCK=ADAM_BLOCK,
        )  # fmt: skip

    def coded_adam(
        self,
        param_RC: Tensor,
        grad_RC: Tensor,
        moments: CodedMoments,
        rule: AdamRule,
    ) -> None:
        assert param_RC.dtype == grad_RC.dtype == torch.float32
        (R, C), blocks = param_RC.shape, moments.mean_scale_RS.shape[1]
        maps = [byte_map(signed, self._device) for signed in (True, False)]
        self._launch(
            coded_adam_kernel, (triton.cdiv(R, CODED_ROWS), blocks),
            param_RC, grad_RC, *vars(moments).values(), rule.clip,
            *(table for each in maps for table in (each.value_256, each.bound, each.guess)),
            R, C, blocks, *param_RC.stride(), *grad_RC.stride(), *_numbers(rule),
            BLOCK_R=CODED_ROWS, BLOCK_C=MOMENT_BLOCK, num_warps=8,
        )  # fmt: skip

    def _launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **shape: int) -> None:
        # Triton launches on the current device, whichever its arguments are on; and whether it
        # fuses multiplications with additions is about to change, and last bits with it.
        with self._here:
            kernel[grid](*arguments, **shape, enable_fp_fusion=True)

    def _width_tensor(self, widths: Sequence[int]) -> Tensor:
        """On the device; copied there once."""
        key = tuple(widths)
        if key not in self._widths:
            self._widths[key] = torch.tensor(key, dtype=torch.int32, device=self._device)
        return self._widths[key]

    def _take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._workspace.take(name, shape, dtype, self._device)


def _numbers(rule: AdamRule) -> tuple[float, ...]:
    """As `triton_updates.updated` takes them."""
    rests = (1 - rule.beta1, 1 - rule.beta2)
    return rule.beta2, *rests, rule.root_correction2, rule.eps, rule.step_size


def block_width(D: int) -> int:
    """Columns of one program: as many as waste little, else what wastes least."""
    padded = {width: -(-D // width) * width for width in WIDTHS}
    fitting = [width for width, columns in padded.items() if columns <= SPARE_WIDTH * D]
    return fitting[0] if fitting else min(WIDTHS, key=lambda width: (padded[width], -width))


def num_warps(block: int) -> int:
    """Warps of a program that works on so many columns of several rows."""
    return max(1, min(8, ENTRIES_AT_A_TIME * block // ELEMENTS_A_WARP))
