"""Memory of the steps that CUDA takes, against all tensors that are alive in them, on a CPU.

What is counted does not depend on the device: kernels that CUDA would run are handed the same
tensors, and are not run. On a CUDA device its allocator is asked as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.architectures import ArchitectureConfig, by_architecture, parse_architecture
from sae.batched import memory, products, step_shapes, topk_family, topk_memory
from sae.batched.kernels import CannotCompile
from sae.batched.step_shapes import Kernels
from sae.memory import pack_memory
from sae.optimizers import eight_bit_adam
from tests.sae.batched.live_bytes import LiveBytes
from tests.sae.synthetic_source import SPARSITY

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ROOT = Path(__file__).parents[3]
TOLERANCE = 0.1
OWN_TOLERANCE = 0.05
"""Of what members keep: a handful of numbers a latent are counted roughly."""
KERNELS: tuple[Kernels, ...] = ("triton", "torch")


@dataclass(frozen=True)
class Case:
    """Members and the shapes that they are stepped with."""

    architectures: tuple[str, ...]
    d_in: int = 128
    d_sae: int = 2048
    batch_tokens: int = 256
    some_die: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def configs(self) -> list[ArchitectureConfig]:
        return [
            config_of(
                name,
                d_sae=self.d_sae,
                init_seed=seed,
                dead_feature_window=0 if self.some_die else 1000,
                **self.more,
            )
            for seed, name in enumerate(self.architectures)
        ]


def config_of(architecture: str, **more: Any) -> ArchitectureConfig:
    knob = by_architecture[architecture].sparsity_knob
    return parse_architecture({"architecture": architecture, knob: SPARSITY[knob], **more})


TOPK_FAMILY = ("batchtopk", "matryoshka_batchtopk", "topk")
AUTOCAST = {"autocast": True}
CASES = {
    **{name: Case((name,)) for name in sorted(by_architecture)},
    **{f"{name}, some dead": Case((name,), some_die=True) for name in TOPK_FAMILY},
    **{
        f"{name}, narrow input": Case((name,), d_in=48, d_sae=4096, batch_tokens=1024)
        for name in sorted(by_architecture)
    },
    "most dead": Case(("topk",), d_in=32, d_sae=8192, batch_tokens=128, some_die=True),
    "few dead": Case(("topk",), d_in=512, d_sae=1024, batch_tokens=128, some_die=True),
    "many kept": Case(("topk",), more={"k": 128}),
    "many kept of the batch": Case(("batchtopk",), more={"k": 128}),
    "nested, residuals of levels": Case(
        ("matryoshka_batchtopk",),
        some_die=True,
        more={"matryoshka_widths": [256, 1024, 2048], "use_matryoshka_aux_loss": True},
    ),
    "tanh": Case(("jumprelu",), more={"jumprelu_sparsity_loss_mode": "tanh"}),
    "signum": Case(("topk",), more={"optimizer": "signum"}),
    "muon": Case(("topk",), more={"optimizer": "muon"}),
    "muon, square": Case(("standard",), d_in=1024, d_sae=1024, more={"optimizer": "muon"}),
    "muon, autocast": Case(("topk",), d_in=512, more={"optimizer": "muon", **AUTOCAST}),
    **{f"{name}, autocast": Case((name,), more=AUTOCAST) for name in sorted(by_architecture)},
    **{
        f"{name}, autocast, some dead": Case((name,), some_die=True, more=AUTOCAST)
        for name in TOPK_FAMILY
    },
    "dense, autocast, wide input": Case(
        ("jumprelu",), d_in=1024, d_sae=1024, batch_tokens=64, more=AUTOCAST
    ),
    "autocast, wide input": Case(("topk",), d_in=1024, d_sae=1024, batch_tokens=64, more=AUTOCAST),
    "8bit": Case(("topk",), d_in=256, more={"adam_moments": "8bit"}),
    "8bit, dense": Case(("standard",), d_in=256, more={"adam_moments": "8bit"}),
    "8bit, three": Case(("topk",) * 3, d_in=256, some_die=True, more={"adam_moments": "8bit"}),
    "float64": Case(("topk",), more={"dtype": "float64"}),
    "three": Case(("topk", "topk", "topk"), some_die=True),
    "unlike": Case(("topk", "gated", "jumprelu")),
}


@needs_triton
@pytest.mark.parametrize("by", KERNELS)
@pytest.mark.parametrize("name", CASES)
def test_live_tensors_are_within_ten_percent_of_the_formulas(name: str, by: Kernels) -> None:
    from tests.sae.batched.measure_steps import live_memory

    case = CASES[name]
    sizes = {"d_in": case.d_in, "batch_tokens": case.batch_tokens}
    found = live_memory(case.configs(), kernels=by, **sizes)
    assert (found.num_dead > 0) == case.some_die
    expected = pack_memory(
        case.configs(),
        d_in=case.d_in,
        batch_tokens=case.batch_tokens,
        kernels=by,
        dead_share=found.num_dead / case.d_sae,
        device="cuda",
    )
    assert expected.members == pytest.approx(found.members, rel=OWN_TOLERANCE)
    assert expected.steps == pytest.approx(found.steps, rel=TOLERANCE)


@needs_triton
@pytest.mark.parametrize(
    "name", ["topk", "topk, some dead", "few dead", "topk, autocast, some dead", "8bit"]
)
def test_so_are_those_of_steps_in_cpp(name: str) -> None:
    """Beside fresh processes (`test_pack_memory`), which are too large for a case each."""
    from tests.sae.batched.measure_steps import live_memory

    case = CASES[name]
    try:
        found = live_memory(
            case.configs(), d_in=case.d_in, batch_tokens=case.batch_tokens, kernels="cpp"
        )
    except CannotCompile as error:
        pytest.skip(str(error))
    expected = pack_memory(
        case.configs(),
        d_in=case.d_in,
        batch_tokens=case.batch_tokens,
        kernels="cpp",
        dead_share=found.num_dead / case.d_sae,
    )
    assert expected.steps == pytest.approx(found.steps, rel=TOLERANCE)


@needs_triton
@pytest.mark.long
def test_kernels_that_are_run_take_no_more_than_those_that_are_not() -> None:
    """In a process of its own: Triton asks for its interpreter when it is imported."""
    path = Path(__file__).with_name("interpreted_live_bytes.py").relative_to(ROOT)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", str(path), "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_what_is_counted_is_what_is_alive() -> None:
    before = torch.zeros(10)
    with LiveBytes([before]) as live:
        one = torch.zeros(100) + before[0]
        assert live.alive == 400 and live.peak == 800
        view, twice = one.view(10, 10), one * 2
        del one
        assert live.alive == 800
        del view, twice
        assert (live.alive, live.peak) == (0, 800)
        live.start_peak()
        before.mul_(2)
        assert live.peak == 0


def test_formulas_and_kernels_have_the_same_sizes() -> None:
    assert topk_family.DENSE_DEAD_RATIO == topk_memory.DENSE_DEAD_RATIO
    names = (products.WEIGHT_BUFFER, products.WIDE_BUFFER)
    assert names == (step_shapes.WEIGHT_BUFFER, step_shapes.WIDE_BUFFER)
    assert memory.CODED_CHUNK_BYTES == 4 * eight_bit_adam.CHUNK_NUMBERS
    if find_spec("triton") is not None:
        from sae.batched.kernels import triton_kernels

        assert triton_kernels.KEY_BYTES == topk_memory.KEY_BYTES
        assert triton_kernels.PART_ENTRIES == topk_memory.PART_ENTRIES


@needs_triton
@pytest.mark.parametrize("norms", [True, False])
def test_a_batch_ranked_in_chunks_has_the_same_code_to_the_bit(norms: bool) -> None:
    from sae.batched.workspace import Workspace
    from tests.sae.batched.measure_steps import UnlaunchedTriton

    generator = torch.Generator().manual_seed(0)
    pre_BF = torch.randn(100, 64, generator=generator)
    bias_F, norm_F = (torch.randn(64, generator=generator) for _ in range(2))
    whole, *chunked = (
        UnlaunchedTriton(torch.device("cpu"), Workspace(), key_bytes=rows * 64 * 4).batch_code(
            pre_BF, bias_F, norm_F.abs() if norms else None, 5 * 100
        )
        for rows in (100, 33, 1)
    )
    for code in chunked:
        for name in ("begin_B1", "index_N", "value_N", "key_N"):
            assert torch.equal(getattr(code, name), getattr(whole, name)), name


@needs_triton
def test_keys_of_a_wide_batch_are_never_there_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else topk and batchtopk would have a second tensor of all latents."""
    from sae.batched.kernels import triton_kernels
    from tests.sae.batched import measure_steps

    chunk_bytes = 64 * 2048 * 4
    monkeypatch.setattr(topk_memory, "KEY_BYTES", chunk_bytes)

    class InChunks(measure_steps.UnlaunchedTriton):
        def __init__(self, device: torch.device, workspace: Any) -> None:
            super().__init__(device, workspace, key_bytes=chunk_bytes)

    monkeypatch.setattr(measure_steps, "UnlaunchedTriton", InChunks)
    assert chunk_bytes < triton_kernels.KEY_BYTES
    for name in TOPK_FAMILY:
        config, latents = config_of(name, d_sae=2048), 512 * 2048 * 4
        found = measure_steps.live_memory([config], d_in=8, batch_tokens=512, kernels="triton")
        assert latents < found.steps < 1.5 * latents, name
        expected = pack_memory(
            [config], d_in=8, batch_tokens=512, kernels="triton", device="cuda", dead_share=0.0
        )
        assert expected.steps == pytest.approx(found.steps, rel=TOLERANCE)


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize(
    "name", ["topk", "topk, some dead", "batchtopk", "standard", "gated", "topk, autocast", "8bit"]
)
def test_cudas_allocator_has_given_out_what_is_predicted(name: str) -> None:
    from tests.sae.batched.measure_steps import allocated_memory

    case = CASES[name]
    configs = [each.model_copy(update={"d_sae": 16384}) for each in case.configs()]
    peak_bytes, num_dead = allocated_memory(
        configs, d_in=768, batch_tokens=2048, device=torch.device("cuda")
    )
    dead_share = num_dead / 16384
    expected = pack_memory(
        configs,
        d_in=768,
        batch_tokens=2048,
        kernels="triton",
        dead_share=dead_share,
        device="cuda",
    )
    assert expected.total == pytest.approx(peak_bytes, rel=TOLERANCE)
