"""Work of batched steps: the formulas by hand, and against what torch's operations read and write.

Shape suffixes: F = latents, D = d_in, B = tokens in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from sae.batched.backend import family_of
from sae.batched.outcome import Bench
from sae.batched.training import train
from sae.batched.work import MUON_PASSES, optimizer_flop, step_work
from sae.batched.workspace import Workspace
from sae.optimizers.muon import Muon
from tests.sae.batched.test_live_bytes import config_of

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")

NO_TRAFFIC = ("view", "slice", "detach", "empty", "alias", "aten.t.", "expand", "squeeze", "select")
DENSE: dict[str, dict[str, Any]] = {
    "standard": {},
    "gated": {},
    "jumprelu": {},
    "tanh": {"jumprelu_sparsity_loss_mode": "tanh"},
}


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all that operations are given and give back; what they fill is given."""

    def __init__(self, *free: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._free = (*NO_TRAFFIC, *free)
        self.num_bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        result, kwargs = func(*args, **(kwargs or {})), dict(kwargs or {})
        if any(name in str(func) for name in self._free):
            return result
        kwargs.pop("out", None)
        for leaf in tree_iter((args, kwargs, result)):
            if isinstance(leaf, Tensor):
                self.num_bytes += leaf.numel() * leaf.element_size()
        return result


def traffic_bytes(name: str, *, d_in: int, d_sae: int, batch_tokens: int) -> int:
    """Of one step without the optimizer's kernels, which are not run."""
    from tests.sae.batched.measure_steps import kernels_named, members_of

    workspace = Workspace()
    bench = Bench(kernels_named("triton", workspace), workspace)
    batch_BD = torch.randn(batch_tokens, d_in, generator=torch.Generator().manual_seed(0))
    (member,) = members_of([dense(name, d_sae)], batch_BD.mean(0), batch_tokens)
    family = family_of(member.config)
    assert family is not None
    train(member, batch_BD, family, bench)
    with Traffic() as traffic:
        train(member, batch_BD, family, bench)
    return traffic.num_bytes


def dense(name: str, d_sae: int) -> Any:
    return config_of("jumprelu" if name == "tanh" else name, d_sae=d_sae, **DENSE[name])


@needs_triton
@pytest.mark.parametrize("name", DENSE)
def test_passes_over_dense_latents_and_weights_are_those_of_the_operations(name: str) -> None:
    many_latents = {"d_in": 8, "d_sae": 1024, "batch_tokens": 2048}
    found = traffic_bytes(name, **many_latents)
    work = step_work(dense(name, 1024), d_in=8, batch_tokens=2048)
    assert work.least_bytes * 2048 == pytest.approx(found, rel=0.1)
    large_weights = {"d_in": 512, "d_sae": 2048, "batch_tokens": 8}
    found = traffic_bytes(name, **large_weights)
    weight_bytes = 2 * 512 * 2048 * 4
    # What kernels do that were not run: the norm's pass, and Adam's over gradient, weight, moments.
    found += (1 + 3 + 4) * weight_bytes
    work = step_work(dense(name, 2048), d_in=512, batch_tokens=8)
    assert work.least_bytes * 8 == pytest.approx(found, rel=0.1)


def test_a_topk_step_is_counted_as_by_hand() -> None:
    d_in, d_sae, k, batch_tokens = 768, 24576, 32, 4096
    work = step_work(config_of("topk", d_sae=d_sae, k=k), d_in=d_in, batch_tokens=batch_tokens)
    weight_bytes, latent_bytes = 2 * d_in * d_sae * 4, d_sae * 4
    assert (work.dense_flop, work.sparse_flop) == (2 * d_in * d_sae, 8 * d_in * k)
    least = 10 * weight_bytes / batch_tokens + 2 * latent_bytes + 4 * d_in * 4
    assert work.least_bytes == pytest.approx(least)
    again = weight_bytes / batch_tokens + 8 * latent_bytes + 4 * d_in * k * 4
    assert work.again_bytes == pytest.approx(again)


def test_moments_and_autocast_move_less() -> None:
    plain, coded, narrow = (
        step_work(config_of("topk", d_sae=4096, **more), d_in=512, batch_tokens=1024)
        for more in ({}, {"adam_moments": "8bit"}, {"autocast": True})
    )
    spared = 2 * (8 - 2 - 8 / 256) * 2 * 512 * 4096 / 1024
    assert plain.least_bytes - coded.least_bytes == pytest.approx(spared)
    copied = 4 * (2 * 512 * 4096 / 1024 + 512)
    assert plain.least_bytes - narrow.least_bytes == pytest.approx(2 * 2 * 4096 - copied)
    assert plain.dense_flop == narrow.dense_flop


@pytest.mark.parametrize("sizes", [(48, 256), (128, 64)])
def test_muon_multiplies_as_much_as_is_counted(sizes: tuple[int, int]) -> None:
    d_in, d_sae = sizes
    config = config_of("topk", d_sae=d_sae, optimizer="muon")
    weights = [torch.randn(d_in, d_sae), torch.randn(d_sae, d_in)]
    optimizer = Muon(weights, lr=1e-3, momentum=0.9, betas=(0.9, 0.999))
    with FlopCounterMode(display=False) as counter:
        for weight in weights:
            optimizer.move(weight, torch.randn_like(weight), optimizer.param_groups[0])
    assert counter.get_total_flops() == optimizer_flop(config, d_in=d_in)
    adam = config_of("topk", d_sae=d_sae)
    assert optimizer_flop(adam, d_in=d_in) == 0
    muon_step, adam_step = (step_work(each, d_in=d_in, batch_tokens=32) for each in (config, adam))
    added = (muon_step.dense_flop - adam_step.dense_flop) * 32
    assert added == pytest.approx(counter.get_total_flops())


def test_muon_moves_as_much_as_is_counted() -> None:
    config = config_of("topk", d_sae=4096, optimizer="muon")
    weight = torch.randn(256, 4096)
    optimizer = Muon([weight], lr=1e-3, momentum=0.9, betas=(0.9, 0.999))
    gradient = torch.randn_like(weight)
    optimizer.move(weight, gradient, optimizer.param_groups[0])
    with Traffic("permute") as traffic:
        optimizer.move(weight, gradient, optimizer.param_groups[0])
    # Over one of the two weights: gradient and weight are 3, the moment is 2, squares are small.
    counted = (3 + 2 + MUON_PASSES) * weight.numel() * 4
    assert traffic.num_bytes == pytest.approx(counted, rel=0.1)
    adam = step_work(config_of("topk", d_sae=4096), d_in=256, batch_tokens=32)
    ours = step_work(config, d_in=256, batch_tokens=32)
    more = ours.least_bytes + ours.again_bytes - adam.least_bytes - adam.again_bytes
    assert more * 32 == pytest.approx(2 * (MUON_PASSES - 2) * weight.numel() * 4)
