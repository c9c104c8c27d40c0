"""Memory of the top-k family's steps, by whose kernels take them, counted from their code.

Units as in `sae.batched.step_shapes`. An entry is one latent that fires for one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from sae.architectures.base import BatchTopKFamilyConfig, TopKFamilyConfig
from sae.architectures.matryoshka_batchtopk import MatryoshkaBatchTopKConfig
from sae.batched.step_shapes import WIDE_BUFFER, Shapes, StepBuffers

DENSE_DEAD_RATIO = 3
"""Up to so many times as many dead latents as a token uses, torch multiplies them all."""

INDEX_BYTES = 12
"""C++: an entry's latent, its place among that latent's entries, its token."""

KEY_BYTES = 256 * 2**20
"""Triton: keys of so many tokens are ranked at a time."""
PART_ENTRIES = 256
"""Triton: entries of one latent that are added up in one row; the rest take rows of their own."""
SEGMENT_BYTES = 28
"""Triton: a latent's segment: where it starts, its parts, its program, its bias' gradient."""
SORT_BYTES = 20
"""A sort's own, an entry: an index of 8 bytes, and a second buffer for key and index (PyTorch,
aten/src/ATen/native/cuda/SortStable.cu, over cub's radix sort). `torch.topk` unsorted takes
counters alone (TensorTopK.cu, `mbtopk`)."""


@dataclass(frozen=True)
class Entries:
    """What the Triton kernels' code of so many entries takes, in bytes."""

    number: float
    size: int
    counts_batch: bool

    @property
    def code(self) -> float:
        """Latent and token in 4 bytes, place in 8, the value, and its key if the batch ranks."""
        return self.number * (16 + self.size * (1 + self.counts_batch))

    @property
    def selection(self) -> float:
        """At the peak of making the code: indices in 8 bytes, sorted and not."""
        by_token = 33 + self.size
        by_batch = 65 + 2 * self.size
        return self.number * (by_batch if self.counts_batch else by_token)

    @property
    def sums(self) -> float:
        """Beside the code when gradients are summed: products, and both of them scaled."""
        return self.number * 3 * self.size

    @property
    def sort(self) -> float:
        """What sorting them takes inside."""
        return self.number * SORT_BYTES


def topk_buffers(shapes: Shapes) -> StepBuffers:
    """What a step of the family takes beside its member."""
    by_kernels = {"cpp": _by_cpp, "torch": _by_torch, "triton": _by_triton}
    return by_kernels[shapes.kernels](shapes)


def num_levels(shapes: Shapes) -> int:
    """Nested dictionaries; one where there are none."""
    config = shapes.config
    return len(config.levels) if isinstance(config, MatryoshkaBatchTopKConfig) else 1


def num_entries(shapes: Shapes) -> float:
    """Of a batch's code."""
    return shapes.batch_tokens * min(shapes.config.sparsity, shapes.config.d_sae)


def dead_share(shapes: Shapes) -> float:
    """Share of latents that an auxiliary loss is computed of at once, all levels dying alike."""
    config = shapes.config
    assert isinstance(config, TopKFamilyConfig)
    if config.aux_loss_coefficient == 0:
        return 0.0
    if not _by_level(shapes):
        return shapes.dead_share
    assert isinstance(config, MatryoshkaBatchTopKConfig)
    widest = max(high - low for low, high in pairwise((0, *config.levels)))
    return shapes.dead_share * widest / config.d_sae


def _by_level(shapes: Shapes) -> bool:
    return getattr(shapes.config, "use_matryoshka_aux_loss", False)


def sort_bytes(shapes: Shapes) -> float:
    """What the longest sort of a step takes inside, which no tensor shows; Triton's alone sort."""
    if shapes.kernels != "triton":
        return 0.0
    aux = max((_aux_entries(shapes, num) for num in _dead_by_kernels(shapes)), default=0.0)
    return SORT_BYTES * max(num_entries(shapes), aux)


def counts_batch(shapes: Shapes) -> bool:
    """Whether k is a mean over the batch."""
    return isinstance(shapes.config, BatchTopKFamilyConfig)


def _by_cpp(shapes: Shapes) -> StepBuffers:
    entry_bytes = INDEX_BYTES + 2 * shapes.size
    entries = num_entries(shapes)
    num_dead = max(_dead_by_kernels(shapes), default=0.0)
    dead = num_dead / shapes.config.d_sae
    by_batch = counts_batch(shapes)
    kept = {
        "main.grad_dec": shapes.half,
        "main.grad_enc": shapes.half,
        "main.pull": num_levels(shapes) * shapes.inputs,
        "main.entries": entries * (entry_bytes + by_batch * shapes.size),
        "aux.grad_dec": dead * shapes.half,
        "aux.grad_enc": dead * shapes.half,
        "aux.pull": shapes.inputs * (num_dead > 0),
        "aux.entries": _aux_entries(shapes, num_dead) * entry_bytes,
    }
    if shapes.config.autocast:
        kept[WIDE_BUFFER] = shapes.latents
    # Dead latents' pre-activations, then their rows of the decoder; else what ranks the batch.
    copied = dead * max(shapes.half, shapes.pre)
    ranked = 1.25 * entries * (2 * shapes.size + 4) * by_batch
    few = max((_aux_by_torch(shapes, num) for num in _dead_by_torch(shapes)), default=0.0)
    return StepBuffers(kept, 3 * shapes.inputs + max(copied, ranked, few))


def _by_torch(shapes: Shapes) -> StepBuffers:
    """Codes are dense there: values, products and gradients, and masks of bools."""
    mask = shapes.latents / shapes.size
    dead = dead_share(shapes)
    code = shapes.latents * (2 + counts_batch(shapes)) + mask
    main = code + shapes.latents + 3 * shapes.half
    # Gradients of dead latents and their rows of the decoder, beside the code and main gradients.
    aux = dead * (3 * shapes.latents + mask + 4 * shapes.half)
    with_aux = code + 2 * shapes.half + aux if dead else 0.0
    inputs = (3 + num_levels(shapes)) * shapes.inputs
    return StepBuffers({}, inputs + max(main, with_aux))


def _by_triton(shapes: Shapes) -> StepBuffers:
    levels = num_levels(shapes)
    main = Entries(num_entries(shapes), shapes.size, counts_batch(shapes))
    small = SEGMENT_BYTES * shapes.config.d_sae
    kept = {
        "key": _key_bytes(shapes, shapes.config.d_sae),
        **_gradient_rows(shapes, "main", shapes.config.d_sae, main.number),
    }
    # The scaled batch and the encoder's input; then the pulls, three times while they are added.
    inputs = 2 * shapes.inputs
    pulls = levels * shapes.inputs
    selection = max(main.selection, _candidates(shapes, main))
    decoding = main.code + (3 * pulls if levels > 1 else pulls)
    narrow = shapes.inputs / shapes.narrowing if shapes.config.autocast else 0.0
    summing = main.code + main.sums + pulls + narrow
    passing = inputs + small + max(selection, decoding, summing)
    residuals = (levels - 1) * shapes.inputs if _by_level(shapes) else 0.0
    beside_aux = inputs + small + main.code + main.number * shapes.size + pulls + residuals
    for num_dead in _dead_by_kernels(shapes):
        passing = max(passing, beside_aux + _aux_by_triton(shapes, num_dead))
        rows = _gradient_rows(shapes, "aux", num_dead, _aux_entries(shapes, num_dead))
        kept = _largest(kept, rows)
    for num_dead in _dead_by_torch(shapes):
        passing = max(passing, beside_aux + _aux_by_torch(shapes, num_dead))
    return StepBuffers(kept, passing)


def _aux_by_triton(shapes: Shapes, num_dead: float) -> float:
    """Dead latents' pre-activations are copied and ranked; then their rows of the decoder are."""
    entries = Entries(_aux_entries(shapes, num_dead), shapes.size, counts_batch=False)
    rows, small = num_dead * shapes.d_in * shapes.size, SEGMENT_BYTES * num_dead
    ranked = num_dead * shapes.batch_tokens * shapes.size / shapes.narrowing + entries.selection
    copied = entries.code + rows * _with_narrow(shapes)
    operands = (rows + shapes.inputs * shapes.config.autocast) / shapes.narrowing
    summing = entries.code + entries.sums + shapes.inputs + operands
    return small + max(ranked, copied, summing)


def _with_narrow(shapes: Shapes) -> float:
    """What is copied and narrowed, over what is copied."""
    return 1.0 + shapes.config.autocast / shapes.narrowing


def _aux_by_torch(shapes: Shapes, num_dead: float) -> float:
    """As above, where so few are dead that all of them are multiplied."""
    pre, rows = num_dead * shapes.batch_tokens * shapes.size, num_dead * shapes.d_in * shapes.size
    mask = pre / shapes.size
    index = 8.0 * _aux_entries(shapes, num_dead)
    selecting = (3 + 1 / shapes.narrowing) * pre + 2 * mask + index
    narrow = shapes.config.autocast / shapes.narrowing
    summing = 4 * rows + (3 + 2 * narrow) * pre + 2 * mask + 2 * shapes.inputs
    return max(selecting, summing)


def _dead_by_kernels(shapes: Shapes) -> tuple[float, ...]:
    """So many dead latents as C++ and Triton's kernels take on."""
    num_dead = dead_share(shapes) * shapes.config.d_sae
    return (num_dead,) if num_dead > _most_by_torch(shapes) else ()


def _dead_by_torch(shapes: Shapes) -> tuple[float, ...]:
    """So many dead latents as torch may have taken on, at most, before they were that many."""
    num_dead = min(dead_share(shapes) * shapes.config.d_sae, _most_by_torch(shapes))
    return (num_dead,) if num_dead else ()


def _most_by_torch(shapes: Shapes) -> float:
    return DENSE_DEAD_RATIO * (shapes.d_in // 2)


def _aux_entries(shapes: Shapes, num_dead: float) -> float:
    return shapes.batch_tokens * min(shapes.d_in // 2, num_dead)


def _key_bytes(shapes: Shapes, num_latents: float) -> float:
    row = num_latents * shapes.size
    return min(shapes.batch_tokens, max(1, KEY_BYTES // row)) * row


def _candidates(shapes: Shapes, main: Entries) -> float:
    """Keys and places of each chunk's best, twice while the batch's best are drawn from them."""
    if not main.counts_batch:
        return 0.0
    rows = _key_bytes(shapes, shapes.config.d_sae) // (shapes.config.d_sae * shapes.size)
    chunks = ceil(shapes.batch_tokens / rows)
    if chunks == 1:
        return 0.0
    each = min(main.number, rows * shapes.config.d_sae)
    return chunks * each * (8 + 2 * shapes.size) + main.number * (16 + shapes.size)


def _gradient_rows(
    shapes: Shapes, name: str, num_latents: float, entries: float
) -> dict[str, float]:
    """Gradients of latents, and the rows in which those with many entries are added up first."""
    rows = num_latents + 2 * ceil(entries) // PART_ENTRIES
    row = rows * shapes.d_in * shapes.size
    return {f"{name}.grad_dec": row, f"{name}.grad_enc": row}


def _largest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}
