"""What is predicted of a pack's memory on a CPU against what fresh processes really take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.architectures import by_architecture, parse_architecture
from sae.batched import backend, kernels, memory
from sae.batched.kernels import compiling, cpp_kernels
from sae.batched.memory import PackMemory, cpu_kernels, cuda_kernels, stepped_by_hand
from sae.batched.step_shapes import BYTES_BY_DTYPE, Kernels
from sae.memory import copies_bytes, member_bytes, pack_memory
from tests.sae.batched.measure_pack import PackCase, PackPeak
from tests.sae.batched.parity_cases import CASES
from tests.sae.synthetic_source import SPARSITY, small_config

ROOT = Path(__file__).parents[3]


def parameters(architecture: str, d_sae: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    knob = by_architecture[architecture].sparsity_knob
    return {
        "architecture": architecture,
        "d_sae": d_sae,
        knob: SPARSITY[knob],
        # A window of zero makes latents die at once: the auxiliary loss is part of the peak.
        "dead_feature_window": 0 if knob == "k" else 1000,
        "init_seed": seed,
        **more,
    }


def same(
    num_members: int, architecture: str, d_sae: int, **more: Any
) -> tuple[dict[str, Any], ...]:
    return tuple(parameters(architecture, d_sae, seed, **more) for seed in range(num_members))


def measured(case: PackCase, by: Kernels = "cpp", **environment: str) -> PackPeak:
    result = subprocess.run(
        [sys.executable, "-m", "tests.sae.batched.measure_pack", json.dumps(asdict(case))],
        cwd=ROOT,
        env={**os.environ, "SAEQ_KERNELS": by, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return PackPeak(**json.loads(result.stdout))


def predicted(case: PackCase, dead_share: float, by: Kernels = "cpp") -> PackMemory:
    return pack_memory(
        [parse_architecture(config) for config in case.configs],
        d_in=case.d_in,
        batch_tokens=case.batch_tokens,
        kernels=by,
        dead_share=dead_share,
    )


LARGE = {name: PackCase(same(2, name, 16384), 576, 256) for name in sorted(by_architecture)} | {
    "topk, none dead": PackCase(same(2, "topk", 16384, dead_feature_window=1000), 576, 256),
    "several": PackCase((*same(1, "topk", 16384), *same(2, "jumprelu", 16384)), 576, 512),
}
"""Matrices above 32 MiB, which glibc gives back when they are freed."""


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_a_packs_resident_set_is_within_ten_percent_of_what_is_predicted(name: str) -> None:
    found = measured(LARGE[name])
    expected = predicted(LARGE[name], found.dead_share).total
    assert expected == pytest.approx(found.peak_bytes, rel=0.1), found


@pytest.mark.long
def test_what_the_allocator_keeps_of_a_smaller_pack_is_counted() -> None:
    case = PackCase(same(4, "topk", 8192), 576, 512)
    # It differs by a tenth between equal processes: hence the middle of three.
    found = sorted((measured(case) for _ in range(3)), key=lambda each: each.peak_bytes)[1]
    expected = predicted(case, found.dead_share).total
    assert expected == pytest.approx(found.peak_bytes, rel=0.1), found


LIVE: dict[str, tuple[PackCase, Kernels]] = {
    "narrow input": (PackCase(same(8, "topk", 8192), 256, 1024), "cpp"),
    "signum": (PackCase(same(4, "topk", 8192, optimizer="signum"), 576, 512), "cpp"),
    "muon": (PackCase(same(4, "topk", 8192, optimizer="muon"), 576, 512), "cpp"),
    "tanh": (
        PackCase(same(2, "jumprelu", 8192, jumprelu_sparsity_loss_mode="tanh"), 576, 512),
        "cpp",
    ),
    "topk by torch": (PackCase(same(2, "topk", 8192), 576, 256), "torch"),
    "gated by torch": (PackCase(same(2, "gated", 8192), 576, 256), "torch"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LIVE)
def test_what_is_in_use_is_within_ten_percent_of_what_is_predicted(name: str) -> None:
    case, by = LIVE[name]
    # Below this size glibc keeps what is freed; nothing that counts here is below it.
    found = measured(case, by, MALLOC_MMAP_THRESHOLD_="65536")
    expected = predicted(case, found.dead_share, by)
    assert expected.total - expected.retained == pytest.approx(found.peak_bytes, rel=0.1), found


def of_one(config: dict[str, Any], **more: Any) -> PackMemory:
    return pack_memory([parse_architecture(config)], d_in=576, batch_tokens=512, **more)


def test_another_member_costs_its_weights_and_moments_and_no_buffers() -> None:
    config = parse_architecture(parameters("topk", 8192))
    one, four = (pack_memory([config] * n, d_in=576, batch_tokens=512) for n in (1, 4))
    weights = 2 * 576 * 8192 * 4
    assert one.members == pytest.approx(3 * weights, rel=0.01)
    assert (four.members, four.steps) == (4 * one.members, one.steps)
    signum = of_one(parameters("topk", 8192, optimizer="signum"))
    assert signum.members == pytest.approx(2 * weights, rel=0.01)


def test_architectures_in_one_pack_share_the_buffers_of_one_name() -> None:
    configs = [parse_architecture(parameters(name, 8192)) for name in ("topk", "gated")]
    both = pack_memory(configs, d_in=576, batch_tokens=512).steps
    alone = [pack_memory([config], d_in=576, batch_tokens=512).steps for config in configs]
    assert max(alone) < both < sum(alone)


def test_room_for_dead_latents_is_for_all_of_them_unless_said_otherwise() -> None:
    config = parameters("batchtopk", 8192)
    worst, none = of_one(config).steps, of_one(config, dead_share=0.0).steps
    assert of_one({**config, "aux_loss_coefficient": 0.0}).steps == none
    assert worst == of_one(config, dead_share=1.0).steps > none
    assert of_one(parameters("standard", 8192)) == of_one(parameters("standard", 8192))


def test_what_sae_lens_steps_is_counted_as_the_reference_backend() -> None:
    config = parse_architecture(parameters("standard", 8192, lp_norm=2.0))
    reference = member_bytes(config, d_in=576, batch_tokens=512, device="cpu")
    assert pack_memory([config] * 2, d_in=576, batch_tokens=512) == PackMemory(2 * reference)
    plain = parse_architecture(parameters("standard", 8192))
    by_sae_lens = pack_memory([plain], d_in=576, batch_tokens=512, kernels=None)
    assert by_sae_lens == PackMemory(reference)


def test_a_checkpoint_and_an_export_copy_what_they_copy() -> None:
    adam, signum = (
        copies_bytes(small_config("topk", optimizer=name), d_in=16) for name in ("adam", "signum")
    )
    assert (adam, signum) == (5 * 2 * 16 * 64 * 4, 4 * 2 * 16 * 64 * 4)
    # A GPU's copies are on the host.
    assert copies_bytes(small_config("topk"), d_in=16, device="cuda") == 2 * 16 * 64 * 4


def test_what_is_stepped_by_hand_is_known_without_torch() -> None:
    configs = [life.config for case in CASES.values() for _, life in case.lives("float64")]
    for architecture in sorted(by_architecture):
        configs += [
            small_config(architecture),
            small_config(architecture, autocast=True),
            small_config(architecture, dtype="bfloat16"),
        ]
    for config in configs:
        assert stepped_by_hand(config) == (backend.family_of(config) is not None), config
    assert tuple(BYTES_BY_DTYPE) == backend.DTYPES
    assert cpp_kernels.SPARSE_SHARE == memory.SPARSE_SHARE


def test_who_steps_on_a_cpu_is_told_as_the_backend_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (backend.VARIABLE, kernels.VARIABLE, "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert memory.COMPILERS == compiling.COMPILERS
    assert f"batched/{cpu_kernels()}" == backend.BatchedStepper(torch.device("cpu")).name
    monkeypatch.setenv(kernels.VARIABLE, "torch")
    assert cpu_kernels() == "torch"
    monkeypatch.delenv(kernels.VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cpu_kernels() == "torch"
    monkeypatch.setenv(backend.VARIABLE, "reference")
    assert cpu_kernels() is None


def test_on_a_gpu_triton_steps_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (backend.VARIABLE, kernels.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert cuda_kernels() == kernels._FASTEST["cuda"]
    monkeypatch.setenv(kernels.VARIABLE, "torch")
    assert cuda_kernels() == "torch"
    monkeypatch.setenv(backend.VARIABLE, "reference")
    assert cuda_kernels() is None
