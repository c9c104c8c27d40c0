"""How many SAEs of Llama 3 8B fit beside their model on one GPU, derived by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.kind import Footprint
from orchestrator.planning.devices import device_named
from orchestrator.planning.machine import GPU_SHARE
from orchestrator.planning.plan import suggested, trials_by_memory, trials_per_device
from orchestrator.spec.sweep import SweepSpec, load_sweep

ROOT = Path(__file__).parents[3]
GIB = 2**30


@pytest.fixture(name="spec")
def _spec(monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    for name in ("SAEQ_BACKEND", "SAEQ_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    return load_sweep(ROOT / "examples" / "llama-3-8b-topk-auxk.yaml")


def footprint(spec: SweepSpec, **more: Any) -> Footprint:
    """Of an SAE with k 192 and an auxiliary loss."""
    config = next(each for each in suggested(spec) if each["k"] == 192)
    return spec.kind.footprint(spec.setup, {**config, "aux_loss_coefficient": 1 / 32, **more})


@pytest.mark.parametrize(
    ("more", "on_80_gb", "on_h200"),
    [
        ({}, 2, 6),
        ({"adam_moments": "8bit"}, 4, 13),
        ({"autocast": False}, 2, 6),
        ({"autocast": False, "adam_moments": "8bit"}, 4, 13),
    ],
)
def test_so_many_fit_beside_the_model(
    more: dict[str, Any], on_80_gb: int, on_h200: int, spec: SweepSpec
) -> None:
    """In GiB: B = 4096 tokens, D = 4096, F = 131072, so [D, F] and [B, F] are 2 in fp32.

    A trial: encoder and decoder 4, Adam's moments 8 (8bit: 2 * (1 + 4/256) = 2.03): 12 or 6.03.

    Shared: the model 15 (8.03e9 weights of 2 bytes), two blocks of 256k activations in bf16 4, a
    layer's forward pass 1.5, evaluation 0.6 and sae_lens's 4 tensors of one context's latents 4,
    the weights of an export that are loaded back 4, CUDA 1. That is 30.

    Steps, once: gradients 4.2 (with rows for what latents with many entries add up first);
    pre-activations 2, in bf16 1 and a weight's copy 1; keys 0.25. If all latents were dead: their
    gradients 6 (2048 entries a token: 1 each for rows), what is copied of the decoder 2, in bf16 1
    beside it while it is made. Entries of 4096 * 2048: 0.3. That is 15 to 16.

    80 GB: (0.92 * 80 - 46) / 12 = 2.3, / 6.03 = 4.6. H200: (0.92 * 140.4 - 46) / 12 = 6.9, 13.8.
    """
    needs = footprint(spec, **more)
    own = 6.03 if "adam_moments" in more else 12.0
    assert needs.trial_bytes / GIB == pytest.approx(own, rel=0.01)
    assert needs.shared_bytes / GIB == pytest.approx(46.0, abs=1.0)
    assert device_named("A100-80").usable_bytes == int(80 * GIB * GPU_SHARE)
    for name, num in (("A100-80", on_80_gb), ("H100-80", on_80_gb), ("H200-141", on_h200)):
        device = device_named(name)
        assert trials_by_memory(device, needs) == num, name
        assert trials_per_device(spec, device, needs) == min(num, spec.trials)


def test_what_is_shared_is_what_was_derived(spec: SweepSpec) -> None:
    parts = {name: num / GIB for name, num in footprint(spec).shared_parts.items()}
    steps = sum(num for name, num in parts.items() if name.startswith("steps: "))
    assert steps == pytest.approx(15.9, abs=0.2)
    derived = {"language model": 15.0, "activations": 4.0, "copies": 4.0, "libraries": 1.0}
    for name, num in derived.items():
        assert parts[name] == pytest.approx(num, abs=0.1), name
    assert parts["evaluation: sae_lens's"] == pytest.approx(4.0)
    # In bf16; and keys are ranked in chunks: there is no second tensor of all latents.
    assert parts["steps: pre"] == pytest.approx(1.0)
    assert parts["steps: key"] == pytest.approx(0.25)


def test_without_an_auxiliary_loss_no_dead_latents_are_copied(spec: SweepSpec) -> None:
    with_it, without = (footprint(spec, aux_loss_coefficient=each) for each in (1 / 32, 0.0))
    assert (with_it.shared_bytes - without.shared_bytes) / GIB == pytest.approx(9.3, abs=0.2)
    coded = footprint(spec, aux_loss_coefficient=0.0, adam_moments="8bit")
    assert trials_by_memory(device_named("A100-80"), coded) == 6
