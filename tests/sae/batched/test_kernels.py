"""The C++ kernels give what torch operations give, and the same bits every time.

Shape suffixes: B = tokens in the batch, F = latents, D = d_in, N = entries of a code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.batched.kernels import CannotCompile, make_kernels
from sae.batched.kernels.base import StepKernels
from sae.batched.kernels.cpp_kernels import SparseCode, SparseEntries, load_cpp_kernels
from sae.batched.kernels.torch_kernels import TorchKernels
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule

CPU = torch.device("cpu")
B, F, D = 37, 203, 19
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Of a tensor's norm."""


@pytest.fixture(autouse=True, params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Loops of the kernels are divided among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    difference = (ours.double() - theirs.double()).norm()
    assert difference <= TOLERANCE[ours.dtype] * theirs.double().norm()


def cpp_or_skip() -> StepKernels:
    try:
        return load_cpp_kernels(Workspace())
    except CannotCompile as error:
        pytest.skip(str(error))


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def dense(code: Any) -> Tensor:
    """A code of either kernels as [B, F]."""
    if not isinstance(code, SparseCode):
        value_BF: Tensor = code.value_BF
        return value_BF
    out_BF = torch.zeros(len(code.begin_B), len(code.start_F1) - 1, dtype=code.value_N.dtype)
    for token, (begin, end) in enumerate(
        zip(code.begin_B.tolist(), code.end_B.tolist(), strict=True)
    ):
        out_BF[token, code.index_N[begin:end].long()] = code.value_N[begin:end]
    return out_BF


def codes(kernels: StepKernels, kind: str, dtype: torch.dtype) -> Any:
    pre_BF, bias_F = drawn(B, F, dtype=dtype), drawn(F, dtype=dtype)
    norm_F = drawn(F, dtype=dtype, seed=1).abs() + 0.1
    if kind == "batch":
        return kernels.batch_code(pre_BF, bias_F, norm_F, 7 * B)
    signed, k = {"token": (False, 7), "signed": (True, 7), "most": (True, 190)}[kind]
    return kernels.token_code(pre_BF, bias_F, norm_F, k, signed=signed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["token", "signed", "most", "batch"])
def test_codes_and_gradients_are_those_of_torch(kind: str, dtype: torch.dtype) -> None:
    found = []
    for kernels in (cpp_or_skip(), TorchKernels(Workspace())):
        code = codes(kernels, kind, dtype)
        W_dec_FD, x_BD = drawn(F, D, dtype=dtype), drawn(B, D, dtype=dtype)
        pull = kernels.decode(code, W_dec_FD, drawn(D, dtype=dtype), x_BD, 1.0, (50, 120, F))
        sums = kernels.accumulate(code, pull, drawn(B, D, dtype=dtype, seed=2), 0.3, into="main")
        found.append(
            [dense(code), code.fired_F(), pull.loss_L, pull.pull_LBD]
            + [sums.dec_FD, sums.enc_FD, sums.bias_F]
        )
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("k", [1, 3, 16, 64, 203])
def test_a_token_keeps_exactly_its_k_largest(k: int) -> None:
    kernels, pre_BF = cpp_or_skip(), drawn(B, F, dtype=torch.float32)
    code = kernels.token_code(pre_BF, torch.zeros(F), None, k, signed=True)
    kept_BF = dense(code) != 0
    assert kept_BF.sum(1).tolist() == [k] * B
    smallest_B = torch.where(kept_BF, pre_BF, torch.inf).min(1).values
    assert torch.equal(smallest_B, pre_BF.topk(k).values[:, -1])


def test_ties_fill_up_to_k_and_no_further() -> None:
    pre_BF = torch.ones(4, 64)
    pre_BF[:, 10] = 2
    kernels = cpp_or_skip()
    code = kernels.token_code(pre_BF, torch.zeros(64), None, 5, signed=False)
    assert (dense(code) != 0).sum(1).tolist() == [5] * 4
    batch = kernels.batch_code(pre_BF, torch.zeros(64), None, 21)
    assert int((dense(batch) != 0).sum()) == 21
    assert dense(batch)[:, 10].tolist() == [2.0] * 4


def test_a_batch_with_few_positive_keys_keeps_only_those() -> None:
    pre_BF = -drawn(B, F, dtype=torch.float32).abs() - 1
    pre_BF[3, 5], pre_BF[30, 7] = 0.25, 0.5
    code: Any = cpp_or_skip().batch_code(pre_BF, torch.zeros(F), None, 7 * B)
    assert float(dense(code).sum()) == 0.75
    assert float(code.smallest_key()) == 0.25
    pre_BF.fill_(-1)
    nothing: Any = cpp_or_skip().batch_code(pre_BF, torch.zeros(F), None, 7 * B)
    assert nothing.smallest_key() is None


@pytest.mark.parametrize("kind", ["token", "batch"])
def test_what_is_not_a_number_is_kept_and_shows_in_the_loss(kind: str) -> None:
    for kernels in (cpp_or_skip(), TorchKernels(Workspace())):
        pre_BF = drawn(B, F, dtype=torch.float32)
        pre_BF[2, 3] = torch.nan
        bias_F = torch.zeros(F)
        code = (
            kernels.token_code(pre_BF, bias_F, None, 4, signed=False)
            if kind == "token"
            else kernels.batch_code(pre_BF, bias_F, None, 4 * B)
        )
        x_BD = torch.zeros(B, D)
        pull = kernels.decode(code, torch.ones(F, D), torch.zeros(D), x_BD, 1.0, (F,))
        assert pull.loss_L.isnan().all(), kernels.name


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_entries_and_all_entries_come_to_the_same(dtype: torch.dtype) -> None:
    pre_BF, bias_F = drawn(B, F, dtype=dtype), drawn(F, dtype=dtype)
    bound_F = torch.full((F,), 2.0, dtype=dtype)
    W_dec_FD, b_dec_D = drawn(F, D, dtype=dtype), drawn(D, dtype=dtype)
    x_BD, price_B = drawn(B, D, dtype=dtype), drawn(B, dtype=dtype)
    results = []
    for kernels in (cpp_or_skip(), TorchKernels(Workspace())):
        entries = kernels.entries(pre_BF.clone(), bias_F, bound_F)
        assert isinstance(entries, SparseEntries) == (kernels.name == "cpp")
        act_E = entries.pre_E + entries.spread(bias_F)
        silent_E = act_E <= entries.spread(bound_F)
        act_E = (act_E * entries.spread_tokens(price_B)).masked_fill_(silent_E, 0)
        found = entries.reconstruct(act_E, W_dec_FD, b_dec_D, x_BD, 0.5, "main")
        grad_E = found.dots_E.masked_fill(silent_E, 0)
        encoder = entries.encoder_gradient(grad_E, x_BD)
        grad_dec_FD = entries.decoder_gradient(act_E, found.pull_BD)
        results.append(
            [found.squares, found.pull_BD, entries.sum_tokens(act_E), entries.sum_latents(act_E)]
            + [entries.decoder_gradient(act_E, found.pull_BD, grad_dec_FD.clone())]
            + [encoder.tensor.T if encoder.transposed else encoder.tensor]
        )
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_is_torchs(dtype: torch.dtype, transposed: bool) -> None:
    param = drawn(300, 70, dtype=dtype)
    ours, theirs = param.clone(), torch.nn.Parameter(param.clone())
    mean, square = torch.zeros_like(param), torch.zeros_like(param)
    kernels = cpp_or_skip()
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.95))
    for step in range(1, 6):
        grad = drawn(300, 70, dtype=dtype, seed=step)
        theirs.grad = grad * 0.5
        adam.step()
        rule = AdamRule(
            clip=torch.tensor(0.5, dtype=torch.float64),
            beta1=0.8,
            beta2=0.95,
            eps=1e-8,
            step_size=0.01 / (1 - 0.8**step),
            root_correction2=(1 - 0.95**step) ** 0.5,
        )
        given = grad.T.contiguous() if transposed else grad
        kernels.adam(ours, given, mean, square, rule, transposed=transposed)
    assert_close(ours, theirs.data)


def test_the_norm_is_that_of_all_together() -> None:
    tensors = [drawn(300, 100), drawn(7), drawn(5).float()]
    expected = sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5
    assert float(cpp_or_skip().norm(tensors)) == pytest.approx(expected, rel=1e-6)


def test_equal_inputs_give_equal_bits() -> None:
    def once() -> Tensor:
        kernels = cpp_or_skip()
        code = codes(kernels, "token", torch.float32)
        x_BD = drawn(B, D, dtype=torch.float32)
        W_dec_FD = drawn(F, D, dtype=torch.float32)
        pull = kernels.decode(code, W_dec_FD, x_BD[0], x_BD, 1.0, (F,))
        return kernels.accumulate(code, pull, x_BD, 0.1, into="main").enc_FD.clone()

    first = once()
    assert all(torch.equal(first, once()) for _ in range(5))


def test_kernels_that_are_asked_for_are_the_ones_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cpp_or_skip()
    monkeypatch.delenv("SAEQ_KERNELS", raising=False)
    assert make_kernels(CPU, Workspace()).name == "cpp"
    monkeypatch.setenv("SAEQ_KERNELS", "torch")
    assert make_kernels(CPU, Workspace()).name == "torch"
    assert make_kernels(CPU, Workspace(), "cpp").name == "cpp"
    monkeypatch.setenv("SAEQ_KERNELS", "fortran")
    with pytest.raises(ValueError, match="SAEQ_KERNELS='fortran' is unknown"):
        make_kernels(CPU, Workspace())


def test_a_workspace_grows_and_gives_back() -> None:
    workspace = Workspace()
    small = workspace.take("a", (4,), torch.float32, CPU)
    assert workspace.take("a", (2, 2), torch.float32, CPU).data_ptr() == small.data_ptr()
    workspace.take("a", (100,), torch.float64, CPU)
    assert workspace.num_bytes == 800
    workspace.clear()
    assert workspace.num_bytes == 0
