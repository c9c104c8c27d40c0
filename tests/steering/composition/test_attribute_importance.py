"""Which attributes set groups apart, by source, and whether sources agree."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from steering.composition import attribute_importance
from steering.errors import BadSteeringInput

GROUPS = ["chemist", "lawyer", "poet"]
IDS = [f"a{n}" for n in range(30)]


def _sources() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Two that agree up to noise, and one in which the poet has most of nearly everything."""
    random = np.random.default_rng(0)
    data = random.random((3, 30))
    noisy = data + 0.05 * random.standard_normal((3, 30))
    skewed = random.random((3, 30)) * 0.3
    skewed[2] += 0.5
    skewed[0, 0] = 1
    return {"data": data, "sfam": noisy, "lisa": skewed}


def test_shares_margins_and_inequality() -> None:
    sources = _sources()
    found = attribute_importance(sources, GROUPS, IDS)
    assert found.share_SG.sum(axis=1) == pytest.approx([1, 1, 1])
    assert found.share_SG[2].tolist() == pytest.approx([1 / 30, 0, 29 / 30])
    ordered = np.sort(sources["data"], axis=0)
    assert found.margin_SA[0] == pytest.approx(ordered[2] - ordered[1])
    assert found.gini_S[2] == pytest.approx(29 / 45, abs=0.03)
    assert found.gini_S[0] < 0.3
    assert found.entropy_S[0] > 0.9 > 0.2 > found.entropy_S[2]
    equal = attribute_importance({"x": np.eye(3)}, GROUPS, IDS[:3])
    assert (equal.gini_S[0], equal.entropy_S[0]) == (pytest.approx(0), pytest.approx(1))
    best, margin = found.top("lisa", "chemist")[0]
    assert best == "a0"
    assert margin == pytest.approx(1 - sources["lisa"][2, 0])


def test_rank_agreement_is_scipys() -> None:
    sources = _sources()
    found = attribute_importance(sources, GROUPS, IDS)
    agreement = {(one.one, one.other): one for one in found.agreements}
    assert set(agreement) == {("data", "sfam"), ("data", "lisa"), ("sfam", "lisa")}
    one, other = (sources[name] - sources[name].mean(axis=0) for name in ("data", "lisa"))
    expected = np.mean([spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)])
    assert agreement["data", "lisa"].spearman == pytest.approx(expected)
    expected = np.mean([kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)])
    assert agreement["data", "lisa"].kendall == pytest.approx(expected)
    assert agreement["data", "sfam"].spearman > 0.9 > agreement["data", "lisa"].spearman
    assert agreement["data", "sfam"].same_winner > 0.8


def test_tables_and_a_picture_are_written(tmp_path: Path) -> None:
    found = attribute_importance(_sources(), GROUPS, IDS)
    written = found.write(tmp_path / "report")
    names = [path.name for path in written]
    assert names == ["groups.csv", "sources.csv", "agreement.csv", "importance.png"]
    assert all(path.stat().st_size > 100 for path in written)
    with written[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert rows[8]["group"] == "poet"
    assert float(rows[8]["share_won"]) == pytest.approx(29 / 30)
    alone = attribute_importance({"data": np.eye(3)}, GROUPS, IDS[:3])
    assert len(alone.write(tmp_path / "alone")) == 3


def test_bad_input_is_refused() -> None:
    with pytest.raises(BadSteeringInput, match=r"sources {'x': \(2, 3\)}"):
        attribute_importance({"x": np.ones((2, 3))}, GROUPS, IDS)
    with pytest.raises(BadSteeringInput, match="at least one source"):
        attribute_importance({}, GROUPS, IDS)
    with pytest.raises(BadSteeringInput, match="sources x hold NaN"):
        attribute_importance({"x": np.full((3, 30), np.nan)}, GROUPS, IDS)
