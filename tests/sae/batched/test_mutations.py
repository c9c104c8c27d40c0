"""The parity tests would notice: each wrong term of a step moves what they compare."""

from __future__ import annotations

from functools import cache

import pytest

from tests.sae.batched.mutations import MUTATIONS
from tests.sae.batched.parity_cases import CASES, Life
from tests.sae.batched.rival import Ran, differences, run_bare

pytestmark = pytest.mark.long

FAR = 1e-4
"""A fault must show a hundred thousand times above what float64 allows, and so in float32, too."""


@cache
def trained_right(case: str) -> list[tuple[Life, Ran]]:
    return [(life, run_bare(life)) for _, life in CASES[case].lives("float64")]


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_parity_fails_for_a_step_with_a_wrong_term(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation = MUTATIONS[name]
    right = trained_right(mutation.case)
    mutation.apply(monkeypatch)
    assert any(
        differences(run_bare(life), ran, tolerance=FAR, loss_tolerance=FAR) for life, ran in right
    )


def test_an_unchanged_step_passes() -> None:
    for life, ran in trained_right("topk"):
        assert differences(run_bare(life), ran, tolerance=0.0, loss_tolerance=0.0) == []
