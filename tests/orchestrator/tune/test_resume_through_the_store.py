"""A trial that is cut off again and again, its newest checkpoint damaged, ends as if it never was.

Everything but Ray: members in a pack, their states through `Checkpoints` and a store and back.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints
from sae.architectures import by_architecture
from sae.member import Member
from sae.member_snapshot import TENSORS_FILE
from sae.pack import Pack
from tests.sae.synthetic_source import SyntheticSource, scheduled_config

pytestmark = pytest.mark.slow

STEPS = 60
BATCH = SyntheticSource().batch_tokens


class Life:
    """One trial from its checkpoints on, in a pack of its own, as after a lost node."""

    def __init__(self, architecture: str, store: Store, epoch: int, scratch: Path) -> None:
        self._pack = Pack(SyntheticSource())
        self._checkpoints = Checkpoints(store, "sweep", "t0000")
        self._epoch, self._scratch = epoch, scratch / str(epoch)
        self._checkpoints.remove_cut_off(epoch)
        newest = self._checkpoints.fetch_newest(self._scratch / "resume")
        folder = newest[0] if newest else None
        config = scheduled_config(architecture)
        self.tokens = self._pack.attach("m", config, STEPS * BATCH, folder)

    def train_to(self, step: int) -> None:
        self._pack.set_target("m", step * BATCH)
        while self._pack.run_step():
            pass

    def save(self) -> None:
        folder = self._scratch / f"at-{self._pack.tokens('m')}"
        tokens = self._pack.save("m", folder)
        self._checkpoints.save(folder, tokens, self._epoch)

    @property
    def member(self) -> Member:
        return self._pack._slots["m"].member


@pytest.mark.parametrize("architecture", sorted(by_architecture))
@pytest.mark.parametrize("seed", range(2))
def test_a_trial_cut_off_at_random_points_equals_the_uninterrupted_one(
    architecture: str, seed: int, tmp_path: Path
) -> None:
    draw = random.Random(f"{architecture} {seed}")
    store = Store.open(str(tmp_path / "store"))
    alone = Life(architecture, Store.open(str(tmp_path / "other")), 1, tmp_path / "alone")
    alone.train_to(STEPS)
    saved_at = [0]
    for epoch, cut in enumerate(sorted(draw.sample(range(2, STEPS), 5)), start=1):
        life = Life(architecture, store, epoch, tmp_path)
        assert life.tokens == saved_at[-1] * BATCH
        for step in sorted({draw.randint(saved_at[-1], cut), draw.randint(saved_at[-1], cut)}):
            life.train_to(step)
            life.save()
            if step > saved_at[-1]:
                saved_at.append(step)
        life.train_to(cut)  # what came since the last checkpoint is lost with the process
        half = store.layout.checkpoint("sweep", "t0000", cut * BATCH + 1, epoch)
        store.backend.put(f"{half}{TENSORS_FILE}", b"an upload that was cut off")
        if draw.random() < 0.5 and len(saved_at) > 2:
            damage_newest(store, draw)
            saved_at.pop()
    last = Life(architecture, store, 99, tmp_path)
    assert last.tokens == saved_at[-1] * BATCH
    last.train_to(STEPS)
    assert last.member.segments == alone.member.segments == [(0, STEPS)]
    ours, theirs = last.member.sae.state_dict(), alone.member.sae.state_dict()
    assert not [name for name, value in theirs.items() if not torch.equal(value, ours[name])]
    moments = last.member.trainer.optimizer.state_dict()["state"]
    wanted = alone.member.trainer.optimizer.state_dict()["state"]
    assert moments.keys() == wanted.keys()
    for parameter, theirs_of in wanted.items():
        ours_of = moments[parameter]
        assert all(torch.equal(theirs_of[name], ours_of[name]) for name in theirs_of)


def damage_newest(store: Store, draw: random.Random) -> None:
    """Truncate a file of the newest complete checkpoint, or change a byte of it."""
    prefix = store.layout.checkpoints("sweep", "t0000")
    complete = [
        f"{prefix}{name}/"
        for name in store.backend.children(prefix)
        if store.files(f"{prefix}{name}/") is not None
    ]
    data = bytearray(store.backend.get(f"{complete[-1]}{TENSORS_FILE}"))
    if draw.random() < 0.5:
        del data[len(data) // 2 :]
    else:
        data[draw.randrange(len(data))] ^= 0xFF
    store.backend.put(f"{complete[-1]}{TENSORS_FILE}", bytes(data))
