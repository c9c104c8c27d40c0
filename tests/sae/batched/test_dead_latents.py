"""Dead latents are found in the step in which they are dead, and not asked for before.

Shape suffixes: F = latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sae.batched.dead_latents import DeadLatents, Silence

CPU = torch.device("cpu")
WINDOW = 4


class FakeMember:
    """What is asked of a member; its latents fall silent one after the other."""

    def __init__(self) -> None:
        self.device, self.steps = CPU, 0
        self.trainer = SimpleNamespace(
            n_forward_passes_since_fired=torch.zeros(3),
            cfg=SimpleNamespace(dead_feature_window=WINDOW),
        )

    @property
    def dead_F(self) -> Any:
        dead_F = self.trainer.n_forward_passes_since_fired > WINDOW
        return SimpleNamespace(nonzero=lambda: self._asked(dead_F))

    def _asked(self, dead_F: torch.Tensor) -> torch.Tensor:
        self.num_asked = getattr(self, "num_asked", 0) + 1
        return dead_F.nonzero()


def run(member: Any, dead: DeadLatents, fires: Sequence[tuple[int, ...]]) -> list[list[int] | None]:
    """What is answered before each step in which these latents fire."""
    answers = []
    for fired in fires:
        found = dead.indices(member, member.dead_F)
        answers.append(None if found is None else found.tolist())
        since_F = member.trainer.n_forward_passes_since_fired
        since_F += 1
        since_F[list(fired)] = 0
        dead.note(member)
        member.steps += 1
    return answers


def test_nobody_is_asked_while_nobody_can_be_dead() -> None:
    member = FakeMember()
    assert run(member, DeadLatents(), [(0, 1, 2)] * 20) == [None] * 20
    assert member.num_asked == 1, "only what nothing is known of"


def test_the_dead_are_found_at_once() -> None:
    member = FakeMember()
    answers = run(member, DeadLatents(), [(0, 1, 2)] * 3 + [(0, 2)] * 8 + [(0, 1, 2)] * 2)
    assert answers == [None] * 8 + [[1]] * 4 + [None]


@pytest.mark.parametrize("delay", [1, 3, 100])
def test_news_that_are_late_change_no_answer(delay: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fires = [(0, 1, 2)] * 9 + [(0, 2)] * 9 + [(0, 1, 2)] * 9
    expected = run(FakeMember(), DeadLatents(), fires)
    tries = iter(range(10**6))
    monkeypatch.setattr(Silence, "_has_arrived", lambda _: next(tries) % (delay + 1) == delay)
    late = FakeMember()
    assert run(late, DeadLatents(), fires) == expected
    assert [1] in expected


def test_a_member_that_was_put_back_is_asked_anew() -> None:
    silence = Silence(CPU)
    silence.note(torch.zeros(2), 10)
    assert silence.longest(12) == 2
    assert silence.longest(3) is None


def test_two_members_are_told_apart() -> None:
    dead, quiet, loud = DeadLatents(), FakeMember(), FakeMember()
    assert run(quiet, dead, [()] * 6)[-1] == [0, 1, 2]
    assert run(loud, dead, [(0, 1, 2)] * 6) == [None] * 6
