"""The Triton kernels: interpreted on a CPU, compiled for GPUs that are not there, run on CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.architectures import parse_architecture
from sae.batched.backend import BatchedBackend, default_backend
from sae.batched.kernels import make_kernels
from sae.batched.workspace import Workspace
from sae.optimizers.adam_rule import AdamRule
from sae.optimizers.byte_maps import CodedMoments
from tests.sae.batched.parity_cases import CASES, Life
from tests.sae.batched.rival import SOURCE, differences, fresh_member, run_bare, run_group
from tests.sae.batched.triton_cases import (
    ALIGNED,
    KINDS,
    LARGE,
    SMALL,
    Sizes,
    check_adam,
    check_coded_adam,
    check_narrow_sums,
    check_norm,
    check_sums,
    drawn,
    sums_of,
    triton_kernels,
)

ROOT = Path(__file__).parents[3]
INTERPRETED_WITHIN_S = 1200.0
"""About 30 s of processor time each."""
TARGETS = (80, 90, 100)
"""A100, H100, B200."""
ON_CUDA = ("topk-mixed", "batchtopk-mixed", "matryoshka-aux-by-level", "standard", "jumprelu-mixed")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_triton
@pytest.mark.long
@pytest.mark.parametrize("module", ["interpreted_kernels", "interpreted_steps"])
def test_interpreted_on_a_cpu(module: str) -> None:
    """In a process of its own: Triton asks for its interpreter when it is imported."""
    path = Path(__file__).with_name(f"{module}.py").relative_to(ROOT)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("SAEQ_KERNELS", None)
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", str(path), "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=INTERPRETED_WITHIN_S,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


class ImaginedGpu:
    """What Triton asks of its driver before it compiles."""

    def __init__(self, compute_capability: int) -> None:
        self._compute_capability = compute_capability

    def get_current_device(self) -> int:
        return self._compute_capability

    def get_current_stream(self, device: int) -> int:
        return device

    def get_current_target(self) -> Any:
        compiler: Any = import_module("triton.backends.compiler")
        return compiler.GPUTarget("cuda", self._compute_capability, 32)


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Launches compile and go no further; what was compiled, by the kernel's name."""
    if find_spec("triton") is None:
        pytest.skip("no Triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    jit: Any = import_module("triton.runtime.jit").JITFunction
    launch, found = jit.run, {}

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        del warmup
        found[self.__name__] = launch(self, *args, grid=grid, warmup=True, **kwargs)

    monkeypatch.setattr(jit, "run", compile_only)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "dtype", "columns"),
    [
        *((target, torch.float32, 768) for target in TARGETS),
        *((target, torch.bfloat16, 768) for target in TARGETS),
        (90, torch.bfloat16, 35),
        (90, torch.float32, 35),
        (90, torch.float64, 4096),
    ],
)
def test_every_launch_compiles_to_machine_code(
    compiled: dict[str, Any],
    target: int,
    dtype: torch.dtype,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By NVIDIA's assembler, which comes with Triton; no GPU is needed for it.

    In bfloat16: W_dec and inputs, of a step with autocast.
    """
    narrow, dtype = dtype == torch.bfloat16, torch.promote_types(dtype, torch.float32)
    driver: Any = import_module("triton.runtime").driver
    monkeypatch.setattr(driver, "_active", ImaginedGpu(target))
    like: dict[str, Any] = {"dtype": dtype, "device": CPU}
    kernels = triton_kernels(SMALL, dtype, CPU)
    for kind in KINDS:
        sizes = replace(SMALL, D=columns)
        sums_of(kernels, kind, sizes, like, Tensor.bfloat16 if narrow else Tensor.contiguous)
    launch_updates(kernels, like)
    names = {"decode", "dots", "accumulate", "join_parts", "squares"}
    names |= {"adam", "adam_transposed", "coded_adam"} if dtype == torch.float32 else set()
    assert compiled.keys() == {f"{name}_kernel" for name in names}
    assert all(len(kernel.asm["cubin"]) > 1000 for kernel in compiled.values())


def launch_updates(kernels: Any, like: dict[str, Any]) -> None:
    """A norm and an update of either layout; none on bytes in float64, which is refused."""
    grad = drawn(33, 70, **like)
    kernels.norm([grad])
    clip = torch.ones((), dtype=torch.float64, device=like["device"])
    rule = AdamRule(clip, 0.9, 0.999, 1e-8, 1e-3, 0.5)
    for transposed in (False, True):
        param = torch.zeros_like(grad.T.contiguous() if transposed else grad)
        mean, square = torch.zeros_like(param), torch.zeros_like(param)
        kernels.adam(param, grad, mean, square, rule, transposed=transposed)
        if grad.dtype == torch.float32:
            param_RC = param.T if transposed else param
            kernels.coded_adam(param_RC, grad, CodedMoments.zero(33, 70, CPU), rule)


@pytest.mark.long
def test_without_triton_everything_else_is_as_before() -> None:
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, pytest\n"
        "from sae.batched.backend import BatchedBackend\n"
        "from sae.batched.kernels import NoTriton, make_kernels\n"
        "from sae.batched.workspace import Workspace\n"
        "cpu = torch.device('cpu')\n"
        "BatchedBackend(cpu)\n"
        "with pytest.raises(NoTriton, match='Triton does not load'):\n"
        "    make_kernels(cpu, Workspace(), 'triton')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr


@needs_triton
@pytest.mark.parametrize("columns", [13, 16, 35, 576, 768, 777, 2304, 4096])
def test_blocks_cover_all_columns_and_waste_little(columns: int) -> None:
    kernels: Any = import_module("sae.batched.kernels.triton_kernels")
    width = kernels.block_width(columns)
    padded = -(-columns // width) * width
    assert padded < columns + 16 or padded <= kernels.SPARE_WIDTH * columns
    assert 1 <= kernels.num_warps(width) <= 8


@needs_triton
@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [SMALL, LARGE, ALIGNED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_gradients_are_those_of_torch_on_cuda(
    kind: str, dtype: torch.dtype, sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    check_sums(kind, dtype, CUDA, sizes, tolerance)


@needs_triton
@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [SMALL, LARGE, ALIGNED])
@pytest.mark.parametrize("kind", KINDS)
def test_operands_in_bfloat16_are_widened_on_cuda(
    kind: str, sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    check_narrow_sums(kind, CUDA, sizes, 1e-5)


@needs_triton
@needs_cuda
@pytest.mark.gpu
def test_updates_are_torchs_on_cuda() -> None:
    check_adam(False, (301, 777), CUDA)
    check_adam(True, (777, 301), CUDA)
    check_coded_adam((301, 777), CUDA, turned=False)
    check_coded_adam((301, 777), CUDA, turned=True)
    check_norm(CUDA, 3001)


@needs_triton
@needs_cuda
@pytest.mark.gpu
def test_equal_inputs_give_equal_bits_on_cuda() -> None:
    like: dict[str, Any] = {"dtype": torch.float32, "device": CUDA}
    kernels = triton_kernels(LARGE, torch.float32, CUDA)
    first = sums_of(kernels, "token", LARGE, like)
    for _ in range(5):
        again = sums_of(kernels, "token", LARGE, like)
        assert all(torch.equal(value, first[name]) for name, value in again.items())


@needs_triton
@needs_cuda
@pytest.mark.gpu
def test_a_step_never_waits_for_the_device() -> None:
    """torch raises where the host would wait; the encoder's product is left out."""
    like: dict[str, Any] = {"dtype": torch.float32, "device": CUDA}
    kernels = triton_kernels(LARGE, torch.float32, CUDA)
    sums_of(kernels, "batch", LARGE, like)
    pre_BF, bias_F = drawn(LARGE.B, LARGE.F, **like), drawn(LARGE.F, **like)
    W_dec_FD, x_BD = drawn(LARGE.F, LARGE.D, **like), drawn(LARGE.B, LARGE.D, **like)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        code = kernels.batch_code(pre_BF, bias_F, None, LARGE.k * LARGE.B)
        pull = kernels.decode(code, W_dec_FD, x_BD[0], x_BD, 1.0, LARGE.widths)
        found = kernels.accumulate(code, pull, x_BD, 0.1, into="main")
        kernels.norm([found.dec_FD, found.enc_FD, found.bias_F])
        assert code.smallest_key() is not None
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_triton
@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka_batchtopk", "standard"])
def test_a_member_steps_without_waiting_for_the_device(architecture: str) -> None:
    """Once it knows that nobody can be dead."""
    config = parse_architecture({"architecture": architecture, "d_sae": 512, "lr": 1e-3})
    member, backend = fresh_member(Life(config), "cuda"), BatchedBackend("cuda")
    batch_BD = SOURCE.batch_at(0).to(CUDA)
    for position in range(3):
        assert not backend.step({"m": member}, batch_BD, position)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        failures = backend.step({"m": member}, batch_BD, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not failures, failures


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["triton", "torch"])
@pytest.mark.parametrize("case", ON_CUDA)
def test_fifty_steps_on_cuda_are_fifty_steps_of_sae_lens(
    case: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setenv("SAEQ_KERNELS", kernels)
    lives = dict(CASES[case].lives("float32"))
    ours = run_group(BatchedBackend("cuda"), lives, "cuda")
    found = {
        name: differences(ours[name], run_bare(life), tolerance=1e-3, loss_tolerance=1e-3)
        for name, life in lives.items()
    }
    assert not any(found.values()), found


@needs_cuda
@pytest.mark.gpu
def test_a_pack_on_cuda_takes_the_batched_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAEQ_BACKEND", raising=False)
    assert isinstance(default_backend(CUDA), BatchedBackend)


@needs_triton
@needs_cuda
@pytest.mark.gpu
def test_triton_passes_its_trial_on_cuda() -> None:
    """Else every test of kernels by their default would be one of torch's."""
    assert make_kernels(CUDA, Workspace()).name == "triton"
