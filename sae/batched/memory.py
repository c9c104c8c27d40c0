"""Memory of batched steps on a CPU, from shapes alone: what members keep, what steps take once.

Members are stepped in turn, so buffers and temporaries are there once, however many members there
are. Buffers stay and are found by name (`sae.batched.workspace`): SAEs of different architectures
share those of one name. No torch: plans are made with this.

Units: `half` is a tensor [d_sae, d_in], `latents` one of [batch, d_sae], `inputs` one of
[batch, d_in].
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sae.architectures import ArchitectureConfig
from sae.architectures.base import BatchTopKFamilyConfig, TopKFamilyConfig
from sae.architectures.gated import GatedConfig
from sae.architectures.jumprelu import JumpReluConfig
from sae.architectures.matryoshka_batchtopk import MatryoshkaBatchTopKConfig
from sae.architectures.standard import StandardConfig

Kernels = Literal["cpp", "torch"]

BYTES_BY_DTYPE = {"float32": 4, "float64": 8}
"""Dtypes that are stepped by hand."""
INDEX_BYTES = 12
"""Of one entry of a sparse code: its latent, its place among that latent's entries, its token."""
SPARSE_SHARE = 0.2
"""Share of latents that fire up to which ReLU-like architectures keep a list of them."""
ADAM_TEMPORARIES = 3
"""Halves that torch's operations take for one parameter's update; the C++ kernel takes none."""
MMAP_LIMIT_BYTES = 32 * 2**20
"""Larger blocks are given back to the system when they are freed (glibc)."""
RETAINED_OF_DEAD = 0.6
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Shapes:
    """Sizes of one member's tensors and of what passes through it, in bytes."""

    config: ArchitectureConfig
    d_in: int
    batch_tokens: int
    kernels: Kernels
    dead_share: float
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", BYTES_BY_DTYPE[self.config.dtype])

    @property
    def half(self) -> float:
        return self.size * self.d_in * self.config.d_sae

    @property
    def latents(self) -> float:
        return self.size * self.batch_tokens * self.config.d_sae

    @property
    def inputs(self) -> float:
        return self.size * self.batch_tokens * self.d_in

    @property
    def member(self) -> float:
        """Weights and the optimizer's moments; biases and counters, twelve numbers a latent."""
        return self.tensors * 2 * self.half + 12 * self.size * self.config.d_sae

    @property
    def tensors(self) -> int:
        """Of one weight: itself and its moments."""
        return 1 + self.config.num_moments


@dataclass(frozen=True)
class StepBuffers:
    """What steps of one configuration take, once for all members, in bytes."""

    kept: Mapping[str, float]
    """Buffers that stay between steps, by their names."""
    passing: float
    """Temporaries that are alive together at the peak."""


def step_buffers(shapes: Shapes) -> StepBuffers:
    """What a step takes beside its member. The configuration must be one `stepped_by_hand`."""
    family = _family(shapes.config)
    assert family is not None
    found = _FORMULAS[family](shapes)
    kept = {"pre": shapes.latents, **found.kept}
    # The scaled batch, the encoder's input, and the error before it is a buffer.
    passing = 3 * shapes.inputs + found.passing
    update = 2 * shapes.half + update_bytes(shapes) - _gradients(kept)
    passing = max(passing, update)
    return StepBuffers(kept, passing)


def update_bytes(shapes: Shapes) -> float:
    """Temporaries of the optimizer's step on one weight, beside the gradients of all."""
    if shapes.config.optimizer == "signum":
        return shapes.half
    return ADAM_TEMPORARIES * shapes.half if shapes.kernels == "torch" else 0.0


@dataclass(frozen=True)
class PackMemory:
    """Peak memory of a pack's members and of their steps on a CPU, in bytes."""

    members: int
    """Kept as long as they are there."""
    steps: int
    """Buffers and temporaries of batched steps, once for all members."""
    retained: int
    """What the allocator keeps of blocks that were freed."""

    @property
    def total(self) -> int:
        """The growth of the process."""
        return self.members + self.steps + self.retained


def batched_memory(members: Sequence[Shapes]) -> PackMemory:
    """Memory of members that are all `stepped_by_hand`; more than one architecture may be there."""
    kept: dict[str, float] = {}
    passing = retained = 0.0
    for shapes in dict.fromkeys(members):
        buffers = step_buffers(shapes)
        for name, num_bytes in buffers.kept.items():
            kept[name] = max(kept.get(name, 0.0), num_bytes)
        passing = max(passing, buffers.passing)
        retained = max(retained, retained_bytes(shapes))
    own = sum(shapes.member for shapes in members)
    return PackMemory(int(own), int(sum(kept.values()) + passing), int(retained))


def retained_bytes(shapes: Shapes) -> float:
    """Freed blocks that glibc keeps beside what is in use, where it would not give them back.

    About one half from drawing initial weights and from temporaries. What dead latents take
    changes its size with their number, so most of it is there twice: what is copied of them, and
    the two gradients that were too small. Fitted; equal processes differ by some tens of MiB.
    """
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


def _family(config: ArchitectureConfig) -> type | None:
    return next((known for known in _FORMULAS if isinstance(config, known)), None)


def _gradients(kept: Mapping[str, float]) -> float:
    return kept.get("main.grad_dec", 0.0) + kept.get("main.grad_enc", 0.0)


def _topk(shapes: Shapes) -> StepBuffers:
    levels = 1
    if isinstance(shapes.config, MatryoshkaBatchTopKConfig):
        levels = len(shapes.config.levels)
    counts_batch = isinstance(shapes.config, BatchTopKFamilyConfig)
    if shapes.kernels == "torch":
        return _topk_by_torch(shapes, levels, counts_batch)
    entry_bytes = INDEX_BYTES + 2 * shapes.size
    num_entries = shapes.batch_tokens * min(shapes.config.sparsity, shapes.config.d_sae)
    dead, num_dead = shapes.dead_share, shapes.dead_share * shapes.config.d_sae
    num_aux_entries = shapes.batch_tokens * min(shapes.d_in // 2, num_dead)
    kept = {
        "main.grad_dec": shapes.half,
        "main.grad_enc": shapes.half,
        "main.pull": levels * shapes.inputs,
        "main.entries": num_entries * (entry_bytes + counts_batch * shapes.size),
        "aux.grad_dec": dead * shapes.half,
        "aux.grad_enc": dead * shapes.half,
        "aux.pull": shapes.inputs * (num_dead > 0),
        "aux.entries": num_aux_entries * entry_bytes,
    }
    # Dead latents' rows of the decoder and pre-activations, copied; else what ranks the batch.
    copied = dead * (shapes.half + shapes.latents)
    ranked = 1.25 * num_entries * (2 * shapes.size + 4) * counts_batch
    return StepBuffers(kept, max(copied, ranked))


def _topk_by_torch(shapes: Shapes, levels: int, counts_batch: bool) -> StepBuffers:
    """Codes are dense there: values, products and gradients, and masks of bools."""
    mask = shapes.latents / shapes.size
    dead = shapes.dead_share
    code = shapes.latents * (2 + counts_batch) + mask
    main = code + shapes.latents + 3 * shapes.half
    # Gradients of dead latents and their rows of the decoder, beside the code and main gradients.
    aux = dead * (3 * shapes.latents + mask + 4 * shapes.half)
    with_aux = code + 2 * shapes.half + aux if dead else 0.0
    return StepBuffers({}, levels * shapes.inputs + max(main, with_aux))


def _relu_like(shapes: Shapes, *buffers: str, passing: float) -> StepBuffers:
    """Dense at first; lists of what fires come on top once few enough latents do."""
    kept = dict.fromkeys(buffers, shapes.latents)
    kept |= {"main.grad_dec": shapes.half, "main.grad_enc": shapes.half}
    if shapes.kernels == "cpp":
        num_entries = SPARSE_SHARE * shapes.batch_tokens * shapes.config.d_sae
        kept |= {
            "main.pull": shapes.inputs,
            "above.entries": num_entries * (INDEX_BYTES + shapes.size),
        }
    return StepBuffers(kept, passing * shapes.latents)


def _standard(shapes: Shapes) -> StepBuffers:
    return _relu_like(shapes, "main.dots", "count", passing=0)


def _gated(shapes: Shapes) -> StepBuffers:
    return _relu_like(shapes, "main.dots", "gate.dots", "count", passing=2)


def _jumprelu(shapes: Shapes) -> StepBuffers:
    """What fires, activations, the estimator's window; tanh and its slope; dead latents' gaps."""
    assert isinstance(shapes.config, JumpReluConfig)
    tanh = 2 if shapes.config.jumprelu_sparsity_loss_mode == "tanh" else 0
    gaps = 0.0 if shapes.config.pre_act_loss_coefficient is None else shapes.dead_share
    return _relu_like(shapes, "main.dots", passing=3 + tanh + gaps)


_FORMULAS: dict[type, Callable[[Shapes], StepBuffers]] = {
    TopKFamilyConfig: _topk,
    StandardConfig: _standard,
    JumpReluConfig: _jumprelu,
    GatedConfig: _gated,
}
