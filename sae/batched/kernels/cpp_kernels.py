"""Step kernels in C++ with OpenMP, `step.cpp`, called over raw pointers.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, L = levels, N = entries of a code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae.batched.entries import Entries, Gradient, Reconstruction, dense_entries
from sae.batched.kernels.base import Code, LatentGradients, Pull
from sae.batched.kernels.cpp_library import CppLibrary, load_library
from sae.batched.kernels.cpp_library import address as _at
from sae.batched.products import widened
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule, torch_adam
from sae.optimizers.byte_maps import CodedMoments, byte_map

CPU = torch.device("cpu")
SPARSE_SHARE = 0.2
"""Share of latents above which multiplying all of them is the faster way."""


@dataclass(frozen=True)
class SparseCode:
    """Token b has the entries begin[b] .. end[b]; what lies between tokens' entries is garbage."""

    begin_B: Tensor
    end_B: Tensor
    index_N: Tensor
    value_N: Tensor
    key_N: Tensor | None
    start_F1: Tensor
    """The same entries by latent: latent f has start[f] .. start[f + 1] of `place`."""
    place_N: Tensor
    token_N: Tensor

    def fired_F(self) -> Tensor:
        return (self.start_F1[1:] - self.start_F1[:-1]).float()

    def smallest_key(self) -> Tensor | None:
        return None if self.key_N is None or not len(self.key_N) else self.key_N.min()


class CppKernels:
    """See `StepKernels`; on the CPU, in float32 and float64."""

    name = "cpp"
    reads_bfloat16 = False

    def __init__(self, library: CppLibrary, workspace: Workspace) -> None:
        self.identity = library.identity
        self._call, self._by_latent = library.by_name, library.by_latent
        self._coded_adam = library.coded_adam
        self._workspace = workspace

    def token_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, k: int, *, signed: bool
    ) -> SparseCode:
        B, F = pre_BF.shape
        pre_BF = widened(pre_BF, self._workspace)
        name = "aux" if signed else "main"
        begin_B, end_B, index_N, value_N = self._entries(name, B, B * k, pre_BF.dtype)
        self._call["select_tokens", pre_BF.dtype](
            _at(pre_BF), _at(bias_F), _at(norm_F), B, F, k, int(signed),
            _at(begin_B), _at(end_B), _at(index_N), _at(value_N), torch.get_num_threads(),
        )  # fmt: skip
        return self._code(name, F, begin_B, end_B, index_N, value_N, None)

    def batch_code(
        self, pre_BF: Tensor, bias_F: Tensor, norm_F: Tensor | None, num_kept: int
    ) -> SparseCode:
        B, F = pre_BF.shape
        pre_BF = widened(pre_BF, self._workspace)
        begin_B, end_B, index_N, value_N = self._entries("main", B, num_kept, pre_BF.dtype)
        key_N = self.take("main.key", (num_kept,), pre_BF.dtype)
        count = self._call["select_batch", pre_BF.dtype](
            _at(pre_BF), _at(bias_F), _at(norm_F), B, F, num_kept,
            _at(begin_B), _at(end_B), _at(index_N), _at(value_N), _at(key_N),
            torch.get_num_threads(),
        )  # fmt: skip
        return self._code(
            "main", F, begin_B, end_B, index_N[:count], value_N[:count], key_N[:count]
        )

    def _entries(
        self, name: str, B: int, N: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (
            self.take(f"{name}.begin", (B,), torch.int32),
            self.take(f"{name}.end", (B,), torch.int32),
            self.take(f"{name}.index", (N,), torch.int32),
            self.take(f"{name}.value", (N,), dtype),
        )

    def _code(
        self,
        name: str,
        F: int,
        begin_B: Tensor,
        end_B: Tensor,
        index_N: Tensor,
        value_N: Tensor,
        key_N: Tensor | None,
    ) -> SparseCode:
        start_F1 = self.take(f"{name}.start", (F + 1,), torch.int32)
        place_N = self.take(f"{name}.place", tuple(index_N.shape), torch.int32)
        token_N = self.take(f"{name}.token", tuple(index_N.shape), torch.int32)
        self._by_latent(
            _at(begin_B), _at(end_B), _at(index_N), len(begin_B), F,
            _at(start_F1), _at(place_N), _at(token_N), torch.get_num_threads(),
        )  # fmt: skip
        return SparseCode(begin_B, end_B, index_N, value_N, key_N, start_F1, place_N, token_N)

    def decode(
        self,
        code: Code,
        W_dec_FD: Tensor,
        bias_D: Tensor | None,
        target_BD: Tensor,
        sign: float,
        widths: Sequence[int],
    ) -> Pull:
        assert isinstance(code, SparseCode)
        name = "main" if bias_D is not None else "aux"
        return self.decode_into(name, code, W_dec_FD, bias_D, target_BD, sign, widths)

    def decode_into(
        self,
        name: str,
        code: SparseCode,
        W_dec_FD: Tensor,
        bias_D: Tensor | None,
        target_BD: Tensor,
        sign: float,
        widths: Sequence[int],
    ) -> Pull:
        """As `decode`, into buffers of a name."""
        L, (B, D), dtype = len(widths), target_BD.shape, target_BD.dtype
        pull_LBD = self.take(f"{name}.pull", (L, B, D), dtype)
        loss_LB = self.take(f"{name}.loss", (L, B), dtype)
        dots_N = self.take(f"{name}.dots", tuple(code.index_N.shape), dtype)
        width_L = torch.tensor(widths, dtype=torch.int32)
        self._call["decode", dtype](
            _at(code.begin_B), _at(code.end_B), _at(code.index_N), _at(code.value_N),
            _at(W_dec_FD), _at(bias_D), _at(target_BD), sign, _at(width_L), L, B, D,
            _at(pull_LBD), _at(loss_LB), _at(dots_N), torch.get_num_threads(),
        )  # fmt: skip
        return Pull(pull_LBD, loss_LB.sum(1), tuple(widths), dots_N)

    def accumulate(
        self, code: Code, pull: Pull, input_BD: Tensor, scale: float, *, into: str
    ) -> LatentGradients:
        assert isinstance(code, SparseCode)
        F, D, dtype = len(code.start_F1) - 1, input_BD.shape[1], input_BD.dtype
        dec_FD = self.take(f"{into}.grad_dec", (F, D), dtype)
        enc_FD = self.take(f"{into}.grad_enc", (F, D), dtype)
        bias_F = self.take(f"{into}.grad_bias", (F,), dtype)
        self.add_up(
            code,
            decoder=(code.value_N, pull.pull_LBD, scale, dec_FD),
            encoder=(pull.dots.mul_(scale), input_BD, enc_FD, bias_F),
            widths=pull.widths,
        )
        return LatentGradients(dec_FD, enc_FD, bias_F)

    def add_up(
        self,
        code: SparseCode,
        *,
        decoder: tuple[Tensor, Tensor, float, Tensor] | None = None,
        encoder: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
        widths: Sequence[int],
        adds: bool = False,
    ) -> None:
        """Sum rows over each latent's entries.

        Args:
            decoder: values [N], pull [L, B, D], factor, result [F, D].
            encoder: values [N], input [B, D], result [F, D], sums of values [F].
            adds: whether the decoder's result is added to.
        """
        value_N, pull_LBD, scale, dec_FD = decoder or (None, None, 0.0, None)
        grad_pre_N, input_BD, enc_FD, bias_F = encoder or (None, None, None, None)
        rows = pull_LBD if pull_LBD is not None else input_BD
        assert rows is not None
        width_L = torch.tensor(widths, dtype=torch.int32)
        self._call["accumulate", rows.dtype](
            _at(code.start_F1), _at(code.place_N), _at(code.token_N), _at(value_N),
            _at(grad_pre_N), _at(pull_LBD), _at(width_L), len(widths), _at(input_BD), scale,
            rows.shape[-2], len(code.start_F1) - 1, rows.shape[-1], int(adds), _at(dec_FD),
            _at(enc_FD), _at(bias_F), torch.get_num_threads(),
        )  # fmt: skip

    def entries(self, pre_BF: Tensor, bias_F: Tensor, bound_F: Tensor) -> Entries:
        B, F = pre_BF.shape
        given_BF, pre_BF = pre_BF, widened(pre_BF, self._workspace)
        count_B = self.take("above.count", (B,), torch.int32)
        total = self._call["count_above", pre_BF.dtype](
            _at(pre_BF), _at(bias_F), _at(bound_F), B, F, _at(count_B), torch.get_num_threads()
        )
        if total > SPARSE_SHARE * B * F:
            return dense_entries(given_BF, self._workspace)
        end_B = count_B.cumsum(0, dtype=torch.int32)
        begin_B = end_B - count_B
        index_N = self.take("above.index", (total,), torch.int32)
        value_N = self.take("above.value", (total,), pre_BF.dtype)
        self._call["take_above", pre_BF.dtype](
            _at(pre_BF), _at(bias_F), _at(bound_F), B, F, _at(begin_B), _at(index_N),
            _at(value_N), torch.get_num_threads(),
        )  # fmt: skip
        code = self._code("above", F, begin_B, end_B, index_N, value_N, None)
        return SparseEntries(self, code)

    def sum_tokens(self, code: SparseCode, values_N: Tensor) -> Tensor:
        """Sum of entries' values over tokens, [F]."""
        F = len(code.start_F1) - 1
        sum_F = torch.empty(F, dtype=values_N.dtype)
        self._call["sum_tokens", values_N.dtype](
            _at(code.start_F1), _at(code.place_N), _at(values_N), F, _at(sum_F),
            torch.get_num_threads(),
        )  # fmt: skip
        return sum_F

    def sum_latents(self, code: SparseCode, values_N: Tensor) -> Tensor:
        """Sum of entries' values over latents, [B]."""
        B = len(code.begin_B)
        sum_B = torch.empty(B, dtype=values_N.dtype)
        self._call["sum_latents", values_N.dtype](
            _at(code.begin_B), _at(code.end_B), _at(values_N), B, _at(sum_B),
            torch.get_num_threads(),
        )  # fmt: skip
        return sum_B

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([self._norm(tensor) for tensor in tensors]).norm()

    def _norm(self, tensor: Tensor) -> Tensor:
        if tensor.dim() == 1:
            return tensor.norm().double()
        squares = self._call["sum_squares", tensor.dtype](
            _at(tensor), tensor.numel(), torch.get_num_threads()
        )
        return torch.tensor(squares, dtype=torch.float64).sqrt()

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
        if param.dim() == 1:
            # Small, and thresholds are float32 in a float64 SAE, where rounding shows.
            torch_adam(param, grad, mean, square, rule)
            return
        numbers = _numbers(rule)
        name, shape = ("adam_transposed", param.shape) if transposed else ("adam", (param.numel(),))
        self._call[name, param.dtype](
            _at(param), _at(grad), _at(mean), _at(square), *shape, numbers, torch.get_num_threads()
        )

    def coded_adam(
        self,
        param_RC: Tensor,
        grad_RC: Tensor,
        moments: CodedMoments,
        rule: AdamRule,
    ) -> None:
        assert param_RC.dtype == grad_RC.dtype == torch.float32
        maps = [byte_map(signed, CPU) for signed in (True, False)]
        tables = [_at(table) for each in maps for table in (each.value_256, each.bound, each.guess)]
        self._coded_adam(
            param_RC.data_ptr(), *param_RC.stride(), grad_RC.data_ptr(), *grad_RC.stride(),
            *(_at(tensor) for tensor in vars(moments).values()), *param_RC.shape, *tables,
            _numbers(rule), torch.get_num_threads(),
        )  # fmt: skip

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer of the workspace."""
        return self._workspace.take(name, shape, dtype, CPU)


class SparseEntries:
    """See `sae.batched.entries.Entries`: the few latents above their bound, in `CppKernels`."""

    def __init__(self, kernels: CppKernels, code: SparseCode) -> None:
        self.pre_E = code.value_N
        self._kernels, self._code = kernels, code
        self._index_N = code.index_N.long()

    def spread(self, values_F: Tensor) -> Tensor:
        return values_F[self._index_N]

    def spread_tokens(self, values_B: Tensor) -> Tensor:
        count_B = self._code.end_B - self._code.begin_B
        return values_B.repeat_interleave(count_B)

    def sum_tokens(self, values_E: Tensor) -> Tensor:
        return self._kernels.sum_tokens(self._code, values_E)

    def count_tokens(self, act_E: Tensor) -> Tensor:
        return self._kernels.sum_tokens(self._code, (act_E != 0).to(torch.float32))

    def sum_latents(self, values_E: Tensor) -> Tensor:
        return self._kernels.sum_latents(self._code, values_E)

    def reconstruct(
        self,
        act_E: Tensor,
        W_dec_FD: Tensor,
        b_dec_D: Tensor,
        x_BD: Tensor,
        scale: float,
        name: str,
    ) -> Reconstruction:
        code = replace(self._code, value_N=act_E)
        widths = (len(W_dec_FD),)
        pull = self._kernels.decode_into(name, code, W_dec_FD, b_dec_D, x_BD, 1.0, widths)
        return Reconstruction(pull.loss_L[0], pull.error_BD.mul_(scale), pull.dots.mul_(scale))

    def decoder_gradient(
        self, act_E: Tensor, pull_BD: Tensor, onto_FD: Tensor | None = None
    ) -> Tensor:
        F, D = len(self._code.start_F1) - 1, pull_BD.shape[1]
        grad_FD = onto_FD
        if grad_FD is None:
            grad_FD = self._kernels.take("main.grad_dec", (F, D), act_E.dtype)
        self._kernels.add_up(
            self._code,
            decoder=(act_E, pull_BD, 1.0, grad_FD),
            widths=(F,),
            adds=onto_FD is not None,
        )
        return grad_FD

    def encoder_gradient(self, grad_pre_E: Tensor, input_BD: Tensor) -> Gradient:
        F, D = len(self._code.start_F1) - 1, input_BD.shape[1]
        grad_FD = self._kernels.take("main.grad_enc", (F, D), grad_pre_E.dtype)
        sum_F = self._kernels.take("main.grad_bias", (F,), grad_pre_E.dtype)
        self._kernels.add_up(
            self._code, encoder=(grad_pre_E, input_BD, grad_FD, sum_F), widths=(F,)
        )
        return Gradient(grad_FD, transposed=True)


def _numbers(rule: AdamRule) -> ctypes.Array[ctypes.c_double]:
    """As `adam_of` in C++ takes them."""
    return (ctypes.c_double * 8)(
        float(rule.clip),
        rule.beta1,
        rule.beta2,
        1 - rule.beta1,
        1 - rule.beta2,
        rule.root_correction2,
        rule.eps,
        rule.step_size,
    )


def load_cpp_kernels(workspace: Workspace) -> CppKernels:
    """Compile the kernels, or take them from the cache. Raises CannotCompile."""
    return CppKernels(load_library(), workspace)
