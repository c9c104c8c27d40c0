"""Memory of batched steps, from shapes alone: what members keep, what steps take once.

Members are stepped in turn, so buffers and temporaries are there once, however many members there
are. Buffers stay and are found by name (`sae.batched.workspace`): SAEs of different architectures
share those of one name. On a CPU fresh processes are held to it; what is alive in the steps that
CUDA takes is counted as torch makes it (`tests/sae/batched/test_live_bytes.py`).

Units: `half` is a tensor [d_sae, d_in], `latents` one of [batch, d_sae], `inputs` one of
[batch, d_in]. No torch: plans are made with this.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sae.architectures import ArchitectureConfig
from sae.architectures.base import TopKFamilyConfig
from sae.architectures.gated import GatedConfig
from sae.architectures.jumprelu import JumpReluConfig
from sae.architectures.standard import StandardConfig
from sae.batched.step_shapes import (
    BYTES_BY_DTYPE,
    WEIGHT_BUFFER,
    WIDE_BUFFER,
    Kernels,
    Shapes,
    StepBuffers,
)
from sae.batched.topk_memory import INDEX_BYTES, sort_bytes, topk_buffers

SPARSE_SHARE = 0.2
"""Share of latents that fire up to which ReLU-like architectures keep a list of them."""
ADAM_TEMPORARIES = 3
"""Halves that torch's operations take for one parameter's update; the C++ kernel takes none."""
CODED_CHUNK_BYTES = 4 * 2**20
"""Moments that torch's operations decode and encode at a time, as float32."""
CODED_TEMPORARIES = 7.25
"""Tensors like such a chunk that are alive meanwhile."""
MMAP_LIMIT_BYTES = 32 * 2**20
"""Larger blocks are given back to the system when they are freed (glibc)."""
RETAINED_OF_DEAD = 0.6
COMPILERS = ("c++", "g++", "clang++")


def step_buffers(shapes: Shapes) -> StepBuffers:
    """What a step takes beside its member. The configuration must be one `stepped_by_hand`."""
    family = _family(shapes.config)
    assert family is not None
    found = _FORMULAS[family](shapes)
    kept = {"pre": shapes.pre, **found.kept}
    if shapes.config.autocast:
        # A weight in bfloat16: of encoder and decoder one after the other, and of all members.
        kept[WEIGHT_BUFFER] = shapes.half / shapes.narrowing
    # Gradients that are no buffers, and the scaled batch, are there while weights are updated.
    gradients = max(0.0, 2 * shapes.half - _gradients(kept))
    update = gradients + shapes.inputs + update_bytes(shapes)
    return StepBuffers(kept, max(found.passing, update))


def update_bytes(shapes: Shapes) -> float:
    """Temporaries of the optimizer's step on one weight, beside the gradients of all."""
    if shapes.config.optimizer == "signum":
        return shapes.half
    if shapes.config.optimizer == "muon":
        # The mean gradient and the operand that it becomes; then an iteration's operand and the
        # next one's, with two squares of the shorter side.
        operand = shapes.half / shapes.narrowing
        shorter = min(shapes.d_in, shapes.config.d_sae)
        squares = 2 * shorter**2 * shapes.size / shapes.narrowing
        return max(shapes.half + operand, 2 * operand + squares)
    if shapes.config.adam_moments == "8bit":
        chunk = min(shapes.half, CODED_CHUNK_BYTES)
        return CODED_TEMPORARIES * chunk if shapes.kernels == "torch" else 0.0
    by_torch = shapes.kernels == "torch" or (
        shapes.kernels == "triton" and shapes.config.dtype != "float32"
    )
    return ADAM_TEMPORARIES * shapes.half if by_torch else 0.0


@dataclass(frozen=True)
class PackMemory:
    """Peak memory of a pack's members and of their steps, in bytes."""

    members: int
    """Kept as long as they are there."""
    buffers: Mapping[str, int] = field(default_factory=dict)
    """Of batched steps, by name: once for all members, as is the next."""
    passing: int = 0
    """Temporaries of batched steps that are alive together at the peak."""
    retained: int = 0
    """What no tensor shows: freed blocks that a CPU's allocator keeps, what a GPU's sorts take."""

    @property
    def steps(self) -> int:
        """Buffers and temporaries."""
        return sum(self.buffers.values()) + self.passing

    @property
    def total(self) -> int:
        """The growth of the process, or of what is taken of the device."""
        return self.members + self.steps + self.retained


def batched_memory(members: Sequence[Shapes]) -> PackMemory:
    """Memory of members that are all `stepped_by_hand`; more than one architecture may be there."""
    kept: dict[str, int] = {}
    passing = retained = 0.0
    for shapes in dict.fromkeys(members):
        buffers = step_buffers(shapes)
        for name, num_bytes in buffers.kept.items():
            kept[name] = max(kept.get(name, 0), int(num_bytes))
        passing = max(passing, buffers.passing)
        retained = max(retained, retained_bytes(shapes))
    own = sum(shapes.member for shapes in members)
    return PackMemory(int(own), kept, int(passing), int(retained))


def retained_bytes(shapes: Shapes) -> float:
    """What a step takes beside tensors.

    On CUDA: what sorts take inside. On a CPU: freed blocks that glibc keeps beside what is in use,
    where it would not give them back. About one half from drawing initial weights and from
    temporaries. What dead latents take changes its size with their number, so most of it is there
    twice: what is copied of them, and the two gradients that were too small. Fitted; equal
    processes differ by some tens of MiB.
    """
    if shapes.on_cuda:
        return sort_bytes(shapes) if isinstance(shapes.config, TopKFamilyConfig) else 0.0
    retained = _kept_when_freed(shapes.half)
    if isinstance(shapes.config, TopKFamilyConfig):
        dead_half = _kept_when_freed(shapes.dead_share * shapes.half)
        dead_latents = _kept_when_freed(shapes.dead_share * shapes.latents)
        retained += RETAINED_OF_DEAD * (3 * dead_half + dead_latents)
    return retained


def _kept_when_freed(block: float) -> float:
    return block if block <= MMAP_LIMIT_BYTES else 0.0


def stepped_by_hand(config: ArchitectureConfig) -> bool:
    """Whether the batched backend has gradients for a configuration; else sae_lens steps it."""
    known = _family(config) is not None and getattr(config, "lp_norm", 1) == 1
    return known and config.dtype in BYTES_BY_DTYPE


def cpu_kernels() -> Kernels | None:
    """Who steps on a CPU, as far as can be told without torch; None: sae_lens's own trainer.

    A plan's machine and the one that trains may differ in this; `SAEQ_BACKEND`, `SAEQ_KERNELS`
    and the compiler are looked up here.
    """
    if os.environ.get("SAEQ_BACKEND") == "reference":
        return None
    if os.environ.get("SAEQ_KERNELS") == "torch":
        return "torch"
    named = os.environ.get("CXX")
    looked_for = (named,) if named else COMPILERS
    return "cpp" if any(shutil.which(name) for name in looked_for) else "torch"


def cuda_kernels() -> Kernels | None:
    """Who steps on a GPU: Triton's, unless `SAEQ_KERNELS` or `SAEQ_BACKEND` say otherwise.

    Where Triton turns out not to work, torch operations take more than is planned.
    """
    if os.environ.get("SAEQ_BACKEND") == "reference":
        return None
    return "torch" if os.environ.get("SAEQ_KERNELS") == "torch" else "triton"


def _family(config: ArchitectureConfig) -> type | None:
    return next((known for known in _FORMULAS if isinstance(config, known)), None)


def _gradients(kept: Mapping[str, float]) -> float:
    return kept.get("main.grad_dec", 0.0) + kept.get("main.grad_enc", 0.0)


def _relu_like(shapes: Shapes, *buffers: str, passing: float, with_gradient: float) -> StepBuffers:
    """Dense at first; lists of what fires come on top once few enough latents do.

    Args:
        passing: temporaries like `latents` at the peak of the formulas.
        with_gradient: those that are there when a weight's gradient is taken, which a product in
            bfloat16 gives as a copy.
    """
    kept = dict.fromkeys(buffers, shapes.latents)
    kept |= {"main.grad_dec": shapes.half, "main.grad_enc": shapes.half}
    narrow = 0.0
    if shapes.config.autocast:
        kept[WIDE_BUFFER], narrow = shapes.latents, shapes.half / shapes.narrowing
    if shapes.kernels == "cpp":
        num_entries = SPARSE_SHARE * shapes.batch_tokens * shapes.config.d_sae
        kept |= {
            "main.pull": shapes.inputs,
            "above.entries": num_entries * (INDEX_BYTES + shapes.size),
        }
    most = max(passing * shapes.latents, with_gradient * shapes.latents + narrow)
    # The scaled batch, the encoder's input, and the error before it is a buffer.
    return StepBuffers(kept, 3 * shapes.inputs + most)


def _standard(shapes: Shapes) -> StepBuffers:
    return _relu_like(shapes, "main.dots", "count", passing=0, with_gradient=0)


def _gated(shapes: Shapes) -> StepBuffers:
    return _relu_like(shapes, "main.dots", "gate.dots", "count", passing=2, with_gradient=2)


def _jumprelu(shapes: Shapes) -> StepBuffers:
    """What fires, activations, the estimator's window; tanh and its slope; dead latents' gaps."""
    assert isinstance(shapes.config, JumpReluConfig)
    tanh = 1 if shapes.config.jumprelu_sparsity_loss_mode == "tanh" else 0
    gaps = 0.0 if shapes.config.pre_act_loss_coefficient is None else shapes.dead_share
    return _relu_like(
        shapes, "main.dots", passing=3 + 2 * tanh + gaps, with_gradient=2 + tanh + gaps
    )


_FORMULAS: dict[type, Callable[[Shapes], StepBuffers]] = {
    TopKFamilyConfig: topk_buffers,
    StandardConfig: _standard,
    JumpReluConfig: _jumprelu,
    GatedConfig: _gated,
}
